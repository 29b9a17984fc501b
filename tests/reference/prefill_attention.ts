import { decodeAttention, inWindow } from "./decode_attention.ts";
import type { HeadShape, Numbers } from "./numbers.ts";

/** `[T, Hq, d]`: token t, at position start + t, sees itself and what came before, or the last `window` of that. */
export function prefillAttention(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  heads: HeadShape,
  start: number,
  window = 0,
): Float64Array {
  const width = heads.numQueryHeads * heads.headDim;
  const out = new Float64Array(q.length);
  for (let t = 0; t < q.length / width; t++) {
    const query = Array.from({ length: width }, (_, i) => q[t * width + i]!);
    out.set(decodeAttention(query, k, v, heads, inWindow(start + t + 1, window)), t * width);
  }
  return out;
}
