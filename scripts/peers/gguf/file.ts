/** Writes GGUF files, version 3: metadata, a table of tensors, then their data, each aligned to 32 bytes. */

/** The supported tensor types, by their number in the format. */
export const GGML_TYPES = { F32: 0, F16: 1, BF16: 30 } as const;
export type GgmlType = keyof typeof GGML_TYPES;
export const ELEMENT_BYTES: Readonly<Record<GgmlType, number>> = { F32: 4, F16: 2, BF16: 2 };
export const ALIGNMENT_BYTES = 32;

/** A metadata value; the property name determines how it is stored. */
export type MetaValue =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { text: string }
  | { texts: readonly string[] }
  | { i32s: readonly number[] }
  | { f32s: readonly number[] };

/** A tensor to write; `shape` is outermost first, as in safetensors. */
export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  readonly shape: readonly number[];
  /** Writes all bytes in order, in pieces whose buffer it may reuse. */
  readonly write: (put: (piece: Uint8Array) => void) => void;
}

const VERSION = 3;
const VALUE_TYPES = { u32: 4, i32s: 5, f32: 6, bool: 7, text: 8, list: 9 } as const;

/** Concatenates little-endian numbers and strings. */
class Encoder {
  readonly #parts: Uint8Array[] = [];
  bytes = 0;

  put(part: Uint8Array): void {
    this.#parts.push(part);
    this.bytes += part.length;
  }

  #number(size: number, set: (view: DataView) => void): void {
    const view = new DataView(new ArrayBuffer(size));
    set(view);
    this.put(new Uint8Array(view.buffer));
  }

  u32(value: number): void {
    this.#number(4, (view) => view.setUint32(0, value, true));
  }

  i32(value: number): void {
    this.#number(4, (view) => view.setInt32(0, value, true));
  }

  f32(value: number): void {
    this.#number(4, (view) => view.setFloat32(0, value, true));
  }

  u64(value: number): void {
    this.#number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.u64(bytes.length);
    this.put(bytes);
  }

  concat(): Uint8Array {
    const all = new Uint8Array(this.bytes);
    let offset = 0;
    for (const part of this.#parts) {
      all.set(part, offset);
      offset += part.length;
    }
    return all;
  }
}

function putList<T>(out: Encoder, type: number, items: readonly T[], put: (item: T) => void): void {
  out.u32(VALUE_TYPES.list);
  out.u32(type);
  out.u64(items.length);
  items.forEach(put);
}

function putValue(out: Encoder, value: MetaValue): void {
  if ("u32" in value) {
    out.u32(VALUE_TYPES.u32);
    out.u32(value.u32);
  } else if ("f32" in value) {
    out.u32(VALUE_TYPES.f32);
    out.f32(value.f32);
  } else if ("bool" in value) {
    out.u32(VALUE_TYPES.bool);
    out.put(Uint8Array.of(value.bool ? 1 : 0));
  } else if ("text" in value) {
    out.u32(VALUE_TYPES.text);
    out.text(value.text);
  } else if ("texts" in value) putList(out, VALUE_TYPES.text, value.texts, (text) => out.text(text));
  else if ("f32s" in value) putList(out, VALUE_TYPES.f32, value.f32s, (number) => out.f32(number));
  else putList(out, VALUE_TYPES.i32s, value.i32s, (number) => out.i32(number));
}

export function tensorBytes({ shape, type }: Pick<GgufTensor, "shape" | "type">): number {
  return shape.reduce((product, size) => product * size, ELEMENT_BYTES[type]);
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/** Everything before the data, padded to the alignment. */
function encodeHeader(metadata: ReadonlyMap<string, MetaValue>, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new Encoder();
  out.put(new TextEncoder().encode("GGUF"));
  out.u32(VERSION);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.text(key);
    putValue(out, value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    out.text(tensor.name);
    out.u32(tensor.shape.length);
    for (const size of tensor.shape.toReversed()) out.u64(size); // innermost first
    out.u32(GGML_TYPES[tensor.type]);
    out.u64(offset);
    offset += aligned(tensorBytes(tensor));
  }
  out.put(new Uint8Array(aligned(out.bytes) - out.bytes));
  return out.concat();
}

/** Writes a whole piece, even if a single write accepts less. */
function writeFully(file: Deno.FsFile, piece: Uint8Array): void {
  for (let done = 0; done < piece.length;) done += file.writeSync(piece.subarray(done));
}

/**
 * Writes a file under a temporary name and renames it at the end. Returns its size in bytes.
 * @throws {Error} if a tensor writes more or fewer bytes than its shape requires
 */
export function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, MetaValue>,
  tensors: readonly GgufTensor[],
): number {
  const temporary = `${path}.${Deno.pid}.tmp`;
  const file = Deno.openSync(temporary, { write: true, create: true, truncate: true });
  try {
    const header = encodeHeader(metadata, tensors);
    writeFully(file, header);
    let total = header.length;
    for (const tensor of tensors) {
      let bytes = 0;
      tensor.write((piece) => {
        writeFully(file, piece);
        bytes += piece.length;
      });
      const expected = tensorBytes(tensor);
      if (bytes !== expected) {
        throw new Error(`Tensor "${tensor.name}" gave ${bytes} bytes, its shape requires ${expected}`);
      }
      writeFully(file, new Uint8Array(aligned(bytes) - bytes));
      total += aligned(bytes);
    }
    Deno.renameSync(temporary, path);
    return total;
  } catch (error) {
    Deno.removeSync(temporary);
    throw error;
  } finally {
    file.close();
  }
}
