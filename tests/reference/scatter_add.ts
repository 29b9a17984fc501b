import type { Numbers } from "./numbers.ts";

/** out with weights[i] * row i of x added to its row rows[i]. */
export function scatterAdd(x: Numbers, rows: Numbers, weights: Numbers, out: Numbers): Float64Array {
  const width = x.length / rows.length;
  const sum = new Float64Array(out);
  for (let i = 0; i < rows.length; i++) {
    for (let j = 0; j < width; j++) sum[rows[i]! * width + j]! += weights[i]! * x[i * width + j]!;
  }
  return sum;
}
