/** Reads GGUF files, written from the format's description and apart from the writer under test. */

/** A tensor of a file; `shape` is innermost first, as the file has it. */
export interface ReadTensor {
  shape: number[];
  type: number;
  /** From the start of the file. */
  offset: number;
}

export interface ReadGguf {
  magic: string;
  version: number;
  metadata: Map<string, unknown>;
  tensors: Map<string, ReadTensor>;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Reads numbers and strings one after the other. */
class Cursor {
  at = 0;
  readonly view: DataView;

  constructor(readonly bytes: Uint8Array<ArrayBuffer>) {
    this.view = new DataView(bytes.buffer);
  }

  take(bytes: number): number {
    this.at += bytes;
    return this.at - bytes;
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): number {
    return Number(this.view.getBigUint64(this.take(8), true));
  }

  text(): string {
    const length = this.u64();
    return new TextDecoder().decode(this.bytes.subarray(this.take(length), this.at));
  }

  value(type: number): unknown {
    if (type === 4) return this.u32();
    if (type === 5) return this.view.getInt32(this.take(4), true);
    if (type === 6) return this.view.getFloat32(this.take(4), true);
    if (type === 7) return this.bytes[this.take(1)] === 1;
    if (type === 8) return this.text();
    if (type !== 9) throw new Error(`Value type ${type} at byte ${this.at}`);
    const items = this.u32();
    return Array.from({ length: this.u64() }, () => this.value(items));
  }
}

export function readGguf(path: string): ReadGguf {
  const bytes = Deno.readFileSync(path);
  const cursor = new Cursor(bytes);
  const magic = new TextDecoder().decode(bytes.subarray(0, cursor.take(4) + 4));
  const version = cursor.u32();
  const [tensorCount, valueCount] = [cursor.u64(), cursor.u64()];
  const metadata = new Map<string, unknown>();
  for (let index = 0; index < valueCount; index++) metadata.set(cursor.text(), cursor.value(cursor.u32()));
  const tensors = new Map<string, ReadTensor>();
  for (let index = 0; index < tensorCount; index++) {
    const name = cursor.text();
    const shape = Array.from({ length: cursor.u32() }, () => cursor.u64());
    tensors.set(name, { shape, type: cursor.u32(), offset: cursor.u64() });
  }
  const start = Math.ceil(cursor.at / 32) * 32;
  for (const tensor of tensors.values()) tensor.offset += start;
  return { magic, version, metadata, tensors, bytes };
}
