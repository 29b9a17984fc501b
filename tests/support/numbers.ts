/** Numbers as the device stores them. */
import type { Device } from "../../ffi/device.ts";
import type { Tensor } from "../../ffi/tensor.ts";

export type FloatType = "f32" | "f16" | "bf16";
export const FLOAT_TYPES: readonly FloatType[] = ["f32", "f16", "bf16"];

/** Largest relative error of rounding one number to the type. */
export const ROUNDING: Readonly<Record<FloatType, number>> = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 };

const oneFloat = new Float32Array(1);
const oneWord = new Uint32Array(oneFloat.buffer);

/** Bits of a bfloat16, rounded to nearest, ties to even. */
function bf16Bits(value: number): number {
  oneFloat[0] = value;
  const bits = oneWord[0]!;
  return Number.isNaN(value) ? 0x7fc0 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The numbers in the type's bits. */
export function encode(dtype: FloatType, values: Float32Array<ArrayBuffer>): ArrayBufferView<ArrayBuffer> {
  if (dtype === "f32") return values;
  return dtype === "f16" ? Float16Array.from(values) : Uint16Array.from(values, bf16Bits);
}

/** The numbers as they are after a round trip through the type. */
export function rounded(dtype: FloatType, values: ArrayLike<number>): Float32Array<ArrayBuffer> {
  if (dtype === "f32") return Float32Array.from(values);
  if (dtype === "f16") return Float32Array.from(Float16Array.from(values));
  const bits = Uint32Array.from(values, (value) => bf16Bits(value) << 16);
  return new Float32Array(bits.buffer);
}

/** A tensor of the type, in a buffer of its own. */
export function uploadAs(
  device: Device,
  dtype: FloatType,
  values: Float32Array<ArrayBuffer>,
  shape: readonly number[],
): Tensor {
  const tensor = device.createTensor(dtype, shape);
  tensor.buffer.write(encode(dtype, values));
  return tensor;
}
