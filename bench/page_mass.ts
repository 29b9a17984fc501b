/** The exact softmax mass of every page, from the keys as stored: what a perfect selector would rank by. */
import type { KvCache } from "../ffi/kv_cache.ts";

/** A query of all heads against one sequence of a layer. */
export interface MassRequest {
  layer: number;
  /** Physical pages in logical order. */
  pages: readonly number[];
  lengthTokens: number;
  /** `[Hq, d]` each. */
  queries: readonly Float32Array[];
  /** Default 1 / sqrt(d). */
  scale?: number;
}

/** By query: `[Hk, P]`, the mass of each page, summed over the query heads of a KV head's group and divided by their number. */
export function pageMass(cache: KvCache, { layer, pages, lengthTokens, queries, scale }: MassRequest): Float64Array[] {
  const { numQueryHeads, numKvHeads, headDim, pageSize } = cache.shape;
  const heads = { group: numQueryHeads / numKvHeads, numKvHeads, headDim, pageSize };
  const factor = scale ?? 1 / Math.sqrt(headDim);
  const parts = queries.map(() => new PageSums(numQueryHeads, pages.length));
  pages.forEach((page, at) => {
    const keys = cache.readPage(layer, page, "keys");
    const tokens = Math.min(pageSize, lengthTokens - at * pageSize);
    queries.forEach((query, index) => parts[index]?.add(at, keys, query, tokens, factor, heads));
  });
  return parts.map((sums) => sums.mass(heads.group));
}

interface Heads {
  group: number;
  numKvHeads: number;
  headDim: number;
  pageSize: number;
}

/** Largest logit and the sum of exponentials relative to it, of every query head and page. */
class PageSums {
  readonly #most: Float64Array;
  readonly #sums: Float64Array;

  constructor(readonly numQueryHeads: number, readonly numPages: number) {
    this.#most = new Float64Array(numQueryHeads * numPages);
    this.#sums = new Float64Array(numQueryHeads * numPages);
  }

  /** keys `[Hk, S, d]`, query `[Hq, d]` */
  add(page: number, keys: Float32Array, query: Float32Array, tokens: number, scale: number, heads: Heads): void {
    const { group, headDim, pageSize } = heads;
    const logits = new Float64Array(tokens);
    for (let head = 0; head < this.numQueryHeads; head++) {
      const first = Math.floor(head / group) * pageSize * headDim;
      for (let token = 0; token < tokens; token++) {
        logits[token] = scale * dot(query, head * headDim, keys, first + token * headDim, headDim);
      }
      const most = Math.max(...logits);
      this.#most[head * this.numPages + page] = most;
      this.#sums[head * this.numPages + page] = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
    }
  }

  /** `[Hk, P]` */
  mass(group: number): Float64Array {
    const { numPages } = this;
    const out = new Float64Array(this.numQueryHeads / group * numPages);
    for (let head = 0; head < this.numQueryHeads; head++) {
      const most = this.#most.subarray(head * numPages, (head + 1) * numPages);
      const top = most.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = most.map((value, page) => Math.exp(value - top) * (this.#sums[head * numPages + page] ?? 0));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const first = Math.floor(head / group) * numPages;
      weights.forEach((weight, page) => out[first + page]! += weight / total / group);
    }
    return out;
  }
}

function dot(a: Float32Array, aFirst: number, b: Float32Array, bFirst: number, count: number): number {
  let sum = 0;
  for (let index = 0; index < count; index++) sum += a[aFirst + index]! * b[bFirst + index]!;
  return sum;
}
