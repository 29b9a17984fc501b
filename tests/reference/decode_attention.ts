import type { HeadShape, Numbers } from "./numbers.ts";

/** Which tokens a query reads. */
export type Sees = (position: number, kvHead: number) => boolean;

/** Only the last `window` of `length` tokens; 0 for all of them. */
export function inWindow(length: number, window: number): Sees {
  return (position) => position < length && (window === 0 || position >= length - window);
}

/** Only the tokens of the pages that each KV head selected. */
export function inPages(selected: readonly (readonly number[])[], pageSize: number): Sees {
  const sets = selected.map((pages) => new Set(pages));
  return (position, kvHead) => sets[kvHead]!.has(Math.floor(position / pageSize));
}

function dot(q: Float64Array, first: number, keys: Float64Array, start: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += q[first + i]! * keys[start + i]!;
  return sum;
}

/** Softmax attention `[Hq, d]` of one query q `[Hq, d]` over the tokens that it sees of k, v `[n, Hk, d]`. */
export function decodeAttention(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  heads: HeadShape,
  sees: Sees,
  scale: number = 1 / Math.sqrt(heads.headDim),
): Float64Array {
  const { numQueryHeads, numKvHeads, headDim } = heads;
  const [queries, keys, values] = [new Float64Array(q), new Float64Array(k), new Float64Array(v)];
  const tokens = keys.length / (numKvHeads * headDim);
  const out = new Float64Array(numQueryHeads * headDim);
  for (let h = 0; h < numQueryHeads; h++) {
    const j = Math.floor(h / (numQueryHeads / numKvHeads));
    const seen = Array.from({ length: tokens }, (_, t) => t).filter((t) => sees(t, j));
    const start = (t: number): number => (t * numKvHeads + j) * headDim;
    const scores = seen.map((t) => scale * dot(queries, h * headDim, keys, start(t), headDim));
    const largest = scores.reduce((best, score) => Math.max(best, score), -Infinity);
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    seen.forEach((t, index) => {
      const weight = weights[index]! / total;
      for (let i = 0; i < headDim; i++) out[h * headDim + i]! += weight * values[start(t) + i]!;
    });
  }
  return out;
}
