import type { Numbers } from "./numbers.ts";

/** x / sqrt(mean(x^2) + eps) * weight for every row of as many numbers as the weight has. */
export function rmsNorm(x: Numbers, weight: Numbers, eps: number): Float64Array {
  const width = weight.length;
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[first + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) out[first + i] = x[first + i]! * scale * weight[i]!;
  }
  return out;
}
