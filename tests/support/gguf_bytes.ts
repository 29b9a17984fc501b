/** GGUF files byte by byte, also such as no program would write. */

/** A metadata value by the kind that is written; `raw` is a type number and the bytes behind it. */
export type TestValue =
  | { u32: number }
  | { i32: number }
  | { u64: bigint }
  | { f32: number }
  | { bool: number }
  | { text: string }
  | { texts: readonly string[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] }
  | { raw: { type: number; bytes: Uint8Array } };

/** A tensor of the table; sizes innermost first, as the file has them. */
export interface TestTensor {
  name: string;
  sizes: readonly (number | bigint)[];
  type?: number;
  /** From the start of the data. Default: behind the tensor before, aligned. */
  offset?: number | bigint;
  /** Default: 4 bytes for each number. */
  data?: Uint8Array;
}

export interface TestGguf {
  magic?: string;
  version?: number;
  bigEndian?: boolean;
  /** Claimed instead of the real counts. */
  numTensors?: bigint;
  numFields?: bigint;
  fields?: readonly [key: string, value: TestValue][];
  tensors?: readonly TestTensor[];
  alignment?: number;
  /** Behind the last tensor. */
  tail?: Uint8Array;
}

const TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, text: 8, list: 9, u64: 10 } as const;

/** Numbers and texts one after the other. */
export class ByteWriter {
  readonly #bytes: number[] = [];

  constructor(readonly littleEndian = true) {}

  get length(): number {
    return this.#bytes.length;
  }

  put(bytes: Iterable<number>): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  u32(value: number): this {
    return this.#number(4, (view) => view.setUint32(0, value, this.littleEndian));
  }

  f32(value: number): this {
    return this.#number(4, (view) => view.setFloat32(0, value, this.littleEndian));
  }

  u64(value: number | bigint): this {
    return this.#number(8, (view) => view.setBigUint64(0, BigInt(value), this.littleEndian));
  }

  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    return this.u64(bytes.length).put(bytes);
  }

  list<T>(type: number, items: readonly T[], put: (item: T) => void): this {
    this.u32(TYPES.list).u32(type).u64(items.length);
    items.forEach(put);
    return this;
  }

  #number(size: number, set: (view: DataView) => void): this {
    const view = new DataView(new ArrayBuffer(size));
    set(view);
    return this.put(new Uint8Array(view.buffer));
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#bytes);
  }
}

function putValue(out: ByteWriter, value: TestValue): void {
  if ("u32" in value) out.u32(TYPES.u32).u32(value.u32);
  else if ("i32" in value) out.u32(TYPES.i32).u32(value.i32 >>> 0);
  else if ("u64" in value) out.u32(TYPES.u64).u64(value.u64);
  else if ("f32" in value) out.u32(TYPES.f32).f32(value.f32);
  else if ("bool" in value) out.u32(TYPES.bool).put([value.bool]);
  else if ("text" in value) out.u32(TYPES.text).text(value.text);
  else if ("texts" in value) out.list(TYPES.text, value.texts, (text) => out.text(text));
  else if ("i32s" in value) out.list(TYPES.i32, value.i32s, (number) => out.u32(number >>> 0));
  else if ("f32s" in value) out.list(TYPES.f32, value.f32s, (number) => out.f32(number));
  else out.u32(value.raw.type).put(value.raw.bytes);
}

/** The bytes of a file. */
export function ggufBytes(file: TestGguf = {}): Uint8Array<ArrayBuffer> {
  const { fields = [], tensors = [], alignment = 32 } = file;
  const out = new ByteWriter(!file.bigEndian);
  out.put(new TextEncoder().encode(file.magic ?? "GGUF")).u32(file.version ?? 3);
  out.u64(file.numTensors ?? tensors.length).u64(file.numFields ?? fields.length);
  for (const [key, value] of fields) {
    out.text(key);
    putValue(out, value);
  }
  const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
  let next = 0;
  const contents = tensors.map(({ name, sizes, type = 0, offset = next, data }) => {
    out.text(name).u32(sizes.length);
    for (const size of sizes) out.u64(size);
    out.u32(type).u64(offset);
    const content = data ?? new Uint8Array(4 * sizes.reduce<number>((product, size) => product * Number(size), 1));
    next += aligned(content.length);
    return content;
  });
  for (const content of contents) {
    out.put(new Uint8Array(aligned(out.length) - out.length));
    out.put(content);
  }
  return out.put(file.tail ?? []).bytes();
}
