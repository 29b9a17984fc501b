/** Collects numbers as bytes; small numbers take few. */
export class ByteWriter {
  #bytes = new Uint8Array(4096);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** A whole number from 0, seven bits per byte. */
  varint(value: number): void {
    for (let rest = value;; rest = Math.floor(rest / 128)) {
      const last = rest < 128;
      this.byte(last ? rest : (rest % 128) | 128);
      if (last) return;
    }
  }

  uint16(value: number): void {
    this.byte(value & 255);
    this.byte(value >> 8);
  }

  byte(value: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = value;
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }
}

/** Reads the bytes of a {@link ByteWriter}. Every read checks for the end. */
export class ByteReader {
  constructor(readonly bytes: Uint8Array, public at = 0) {}

  /** @throws {RangeError} past the end, and for numbers that no writer produces */
  varint(): number {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 42; scale *= 128) {
      const byte = this.byte();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("A number is longer than 7 bytes");
  }

  uint16(): number {
    const low = this.byte();
    return low | (this.byte() << 8);
  }

  byte(): number {
    const value = this.bytes[this.at++];
    if (value === undefined) throw new RangeError(`Byte ${this.at - 1} lies past the end of ${this.bytes.length}`);
    return value;
  }
}
