import { PagesiftError } from "../errors.ts";
import { openModelFile, readFully } from "../folder/safetensors.ts";
import { shorten } from "../folder/json_file.ts";

const WINDOW_BYTES = 1 << 20;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes that a header may take: the largest vocabularies take 20 MB. */
export const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads the little-endian numbers and strings at the start of a file one after the other, through a window of 1 MiB. Nothing is
 * allocated for a length that the file does not have. Throws "model" errors that name the file and the field.
 */
export class FileCursor implements Disposable {
  readonly #handle: Deno.FsFile;
  readonly #window: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #limit: number;
  /** Place of the window in the file, and how much of it is filled. */
  #start = 0;
  #filled = 0;
  /** Of the next byte in the window. */
  #at = 0;
  /** What is being read, for messages. */
  field = "the header";

  constructor(readonly file: string, readonly fileBytes: number) {
    this.#handle = openModelFile(file);
    this.#limit = Math.min(fileBytes, MAX_HEADER_BYTES);
    this.#window = new Uint8Array(Math.min(WINDOW_BYTES, this.#limit));
    this.#view = new DataView(this.#window.buffer);
  }

  /** Bytes from the start of the file. */
  get position(): number {
    return this.#start + this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  i8(): number {
    return this.#view.getInt8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  i16(): number {
    return this.#view.getInt16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  f32(): number {
    return this.#view.getFloat32(this.#take(4), true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  i64(): bigint {
    return this.#view.getBigInt64(this.#take(8), true);
  }

  bool(): boolean {
    const value = this.u8();
    return value <= 1 ? value === 1 : this.refuse(`is ${value}, expected 0 or 1`);
  }

  /** A count of items that take at least `itemBytes` each in the file. */
  count(itemBytes: number, what: string): number {
    const count = this.u64();
    const room = this.#limit - this.position;
    if (count * BigInt(itemBytes) <= BigInt(room)) return Number(count);
    return this.refuse(`claims ${count} ${what}, and ${Math.max(0, room)} bytes follow; download the file again`);
  }

  text(): string {
    const length = this.count(1, "bytes of text");
    try {
      return UTF8.decode(this.#bytes(length));
    } catch (cause) {
      if (cause instanceof PagesiftError) throw cause;
      return this.refuse("is not UTF-8 text; download the file again");
    }
  }

  refuse(problem: string): never {
    throw new PagesiftError("model", `Cannot read "${this.file}": ${shorten(this.field, 200)} ${problem}`);
  }

  #bytes(length: number): Uint8Array {
    if (length <= this.#window.length) {
      const at = this.#take(length);
      return this.#window.subarray(at, at + length);
    }
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const part = Math.min(this.#window.length, length - done);
      const at = this.#take(part);
      out.set(this.#window.subarray(at, at + part), done);
      done += part;
    }
    return out;
  }

  /** Place of the next `bytes` bytes in the window, which are then read. */
  #take(bytes: number): number {
    if (this.#at + bytes > this.#filled) this.#fill(bytes);
    this.#at += bytes;
    return this.#at - bytes;
  }

  /** Moves the window to the present position. */
  #fill(bytes: number): void {
    const position = this.position;
    if (position + bytes > this.#limit) {
      const problem = this.#limit < this.fileBytes
        ? `lies beyond the ${MAX_HEADER_BYTES} bytes that a header may take`
        : `lies beyond the end of the file (${this.fileBytes} bytes); download the file again`;
      this.refuse(problem);
    }
    this.#handle.seekSync(position, Deno.SeekMode.Start);
    const wanted = Math.min(this.#window.length, this.#limit - position);
    const filled = readFully(this.#handle, this.#window.subarray(0, wanted), this.file);
    [this.#start, this.#filled, this.#at] = [position, filled, 0];
    if (filled < bytes) this.refuse("cannot be read: the file became shorter; download it again");
  }

  [Symbol.dispose](): void {
    this.#handle.close();
  }
}
