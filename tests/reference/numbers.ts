/** Any list of numbers; the oracles compute in float64 whatever it holds. */
export type Numbers = ArrayLike<number>;

/** How heads share keys: query head h reads KV head floor(h / (numQueryHeads / numKvHeads)). */
export interface HeadShape {
  numQueryHeads: number;
  numKvHeads: number;
  headDim: number;
}
