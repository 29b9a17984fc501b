import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import { openModelFile, readSafetensorsHeader, readTensorBytes, type TensorPlace } from "./safetensors.ts";

/**
 * Reads a whole tensor into memory, flattened: I32 as it is; F32, F16 and BF16 as float32. For fixtures and small tensors;
 * weights go through `readRowsInPieces`. Throws "model" errors.
 */
export async function readTensor(file: string, name: string): Promise<Float32Array | Int32Array> {
  const entry = (await readSafetensorsHeader(file)).tensors.get(name);
  if (entry === undefined) throw new PagesiftError("model", `No tensor "${name}" in "${file}"`);
  return readNumbers(entry);
}

/** All bytes of a small tensor. Throws a "model" error where the file ends early. */
export function readAll(tensor: TensorPlace): Uint8Array<ArrayBuffer> {
  using file = openModelFile(tensor.file);
  const bytes = new Uint8Array(tensor.bytes);
  readTensorBytes(file, tensor, 0, bytes);
  return bytes;
}

/** All numbers of a small tensor, as {@link readTensor} gives them. */
export function readNumbers(tensor: TensorPlace & { readonly dtype: string }): Float32Array | Int32Array {
  const numbers = decodeTensor(tensor.dtype, readAll(tensor));
  if (numbers !== undefined) return numbers;
  const problem = `dtype ${tensor.dtype} of "${shorten(tensor.name)}" in "${tensor.file}" is not supported`;
  throw new PagesiftError("model", `Cannot read tensor: ${problem}; expected F32, F16, BF16 or I32`);
}

/** Values of little-endian bytes that start at their buffer's start; undefined for other dtypes. */
export function decodeTensor(
  dtype: string,
  bytes: Uint8Array<ArrayBuffer>,
): Float32Array | Int32Array | undefined {
  const { buffer } = bytes;
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer, 0, bytes.length / 4);
    case "I32":
      return new Int32Array(buffer, 0, bytes.length / 4);
    case "F16":
      return Float32Array.from(new Float16Array(buffer, 0, bytes.length / 2));
    case "BF16":
      return bfloat16ToFloat32(new Uint16Array(buffer, 0, bytes.length / 2));
    default:
      return undefined;
  }
}

/** bfloat16 is the upper half of float32. */
export function bfloat16ToFloat32(halves: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}
