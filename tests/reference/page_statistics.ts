import type { Numbers } from "./numbers.ts";

/** Statistics of one page and KV head over the tokens that it holds. */
export interface PageStatistics {
  /** `[d]` each. */
  mean: number[];
  variance: number[];
  min: number[];
  max: number[];
  /** Root mean square distance of the keys from their mean. */
  std: number;
}

function statisticsOf(keys: number[][]): PageStatistics {
  const dims = Array.from(keys[0]!, (_, i) => keys.map((key) => key[i]!));
  const mean = dims.map((column) => column.reduce((sum, x) => sum + x, 0) / column.length);
  const variance = dims.map((column, i) => column.reduce((sum, x) => sum + (x - mean[i]!) ** 2, 0) / column.length);
  return {
    mean,
    variance,
    min: dims.map((column) => Math.min(...column)),
    max: dims.map((column) => Math.max(...column)),
    std: Math.sqrt(variance.reduce((sum, x) => sum + x, 0)),
  };
}

/** `[page][KV head]` of keys `[n, Hk, d]`; the last page may hold fewer than `pageSize` tokens. */
export function pageStatistics(
  keys: Numbers,
  numKvHeads: number,
  headDim: number,
  pageSize: number,
): PageStatistics[][] {
  const tokens = keys.length / (numKvHeads * headDim);
  const key = (token: number, head: number): number[] =>
    Array.from({ length: headDim }, (_, i) => keys[(token * numKvHeads + head) * headDim + i]!);
  return Array.from({ length: Math.ceil(tokens / pageSize) }, (_, page) => {
    const held = Math.min(pageSize, tokens - page * pageSize);
    return Array.from(
      { length: numKvHeads },
      (_, head) => statisticsOf(Array.from({ length: held }, (_, place) => key(page * pageSize + place, head))),
    );
  });
}
