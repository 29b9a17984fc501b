import type { Sees } from "./decode_attention.ts";
import type { HeadShape, Numbers } from "./numbers.ts";

/** `[Hq][page]`: the share of every page in the softmax of query q `[Hq, d]` over the tokens that it sees of k `[n, Hk, d]`. */
export function pageMass(q: Numbers, k: Numbers, heads: HeadShape, pageSize: number, sees: Sees): number[][] {
  const { numQueryHeads, numKvHeads, headDim } = heads;
  const tokens = k.length / (numKvHeads * headDim);
  return Array.from({ length: numQueryHeads }, (_, h) => {
    const kvHead = Math.floor(h / (numQueryHeads / numKvHeads));
    const scores = Array.from({ length: tokens }, (_, t) => {
      if (!sees(t, kvHead)) return -Infinity;
      let sum = 0;
      for (let i = 0; i < headDim; i++) sum += q[h * headDim + i]! * k[(t * numKvHeads + kvHead) * headDim + i]!;
      return sum / Math.sqrt(headDim);
    });
    const largest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return Array.from(
      { length: Math.ceil(tokens / pageSize) },
      (_, page) =>
        weights.slice(page * pageSize, (page + 1) * pageSize).reduce((sum, weight) => sum + weight, 0) / total,
    );
  });
}
