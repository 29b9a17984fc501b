import type { Numbers } from "./numbers.ts";

/** The rows `ids` of table `[V, width]`. */
export function embedding(ids: Numbers, table: Numbers, width: number): Float64Array {
  const out = new Float64Array(ids.length * width);
  for (let t = 0; t < ids.length; t++) {
    for (let i = 0; i < width; i++) out[t * width + i] = table[ids[t]! * width + i]!;
  }
  return out;
}
