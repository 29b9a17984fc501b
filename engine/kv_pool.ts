import type { Device } from "../ffi/device.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import type { ModelConfig } from "./config.ts";
import type { PagePolicy } from "./page_policy.ts";
import { PageAllocator, pagesFor } from "./page_table.ts";
import { Sequence } from "./sequence.ts";

/** What a pool must hold. */
export interface PoolNeed {
  /** Tokens of all sequences that are in the pool at once. */
  totalTokens: number;
  /** Tokens of the longest of them. */
  longestTokens: number;
  /** Sequences that decode together. */
  maxSequences: number;
}

/** The cache shape for a model, a policy and a need. */
export function cacheShape(
  config: ModelConfig,
  dtype: CacheShape["dtype"],
  policy: PagePolicy,
  need: PoolNeed,
): CacheShape {
  const longest = pagesFor(need.longestTokens, policy.pageSize);
  return {
    // Every sequence may leave one page part empty.
    numPages: pagesFor(need.totalTokens, policy.pageSize) + need.maxSequences,
    maxPagesPerSequence: longest,
    numLayers: config.numLayers,
    numQueryHeads: config.numQueryHeads,
    numKvHeads: config.numKvHeads,
    headDim: config.headDim,
    pageSize: policy.pageSize,
    dtype,
    statistics: { variance: policy.scorer === "diag", minMax: policy.scorer === "quest" },
    maxSequences: need.maxSequences,
  };
}

/** A KV cache and the book of its pages. */
export class KvPool {
  readonly cache: KvCache;
  readonly allocator: PageAllocator;

  constructor(device: Device, readonly shape: CacheShape) {
    this.cache = KvCache.create(device, shape);
    this.allocator = new PageAllocator(shape.numPages);
  }

  /** Whether this pool can serve where `wanted` was asked for. */
  covers(wanted: CacheShape): boolean {
    const { shape } = this;
    return !this.cache.closed && shape.pageSize === wanted.pageSize && shape.numPages >= wanted.numPages &&
      shape.maxPagesPerSequence >= wanted.maxPagesPerSequence && shape.maxSequences >= wanted.maxSequences &&
      (shape.statistics.variance || !wanted.statistics.variance) &&
      (shape.statistics.minMax || !wanted.statistics.minMax);
  }

  openSequence(): Sequence {
    return new Sequence(this.allocator, this.shape.pageSize);
  }

  /** Shortens a sequence; the statistics of its last page follow. */
  truncate(sequence: Sequence, length: number): void {
    const tail = sequence.truncate(length);
    if (tail) this.cache.renewPage(tail.page, tail.numTokens);
  }

  /** Bytes of keys and values of one page in one layer and KV head. */
  get pageBytes(): number {
    return 2 * this.shape.pageSize * this.shape.headDim * this.#numberBytes;
  }

  /** Bytes that scoring one page reads in one layer and KV head. */
  statisticsBytes(policy: PagePolicy): number {
    const vectors = policy.scorer === "diag" || policy.scorer === "quest" ? 2 : 1;
    return vectors * this.shape.headDim * this.#numberBytes + (policy.scorer === "unique" ? 4 : 0);
  }

  /** The most bytes of keys and values that sequences held at once. */
  get peakKvBytes(): number {
    return this.allocator.peakUsed * this.pageBytes * this.shape.numLayers * this.shape.numKvHeads;
  }

  get #numberBytes(): number {
    return this.shape.dtype === "f32" ? 4 : 2;
  }

  close(): void {
    this.cache.close();
  }
}
