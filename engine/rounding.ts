import type { DType } from "../ffi/structs.ts";

/** The value as a number of this dtype has it, rounded to nearest, ties to even; unchanged for f32 and others. */
export function roundedTo(dtype: DType, value: number): number {
  if (dtype === "f16") return Float16Array.of(value)[0] ?? value;
  if (dtype !== "bf16") return value;
  const [bits = 0] = new Uint32Array(Float32Array.of(value).buffer);
  const kept = (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16 << 16;
  return new Float32Array(Uint32Array.of(kept).buffer)[0] ?? value;
}
