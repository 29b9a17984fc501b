import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import type { CacheShape, Counters, PageStatistics } from "../../ffi/structs.ts";
import type { ModelConfig } from "../folder/config.ts";
import { type KvFormat, kvRowBytes, scoredBytes } from "./kv_type.ts";
import { type PagePolicy, PREFILL_TILE_TOKENS } from "./page_policy.ts";
import { PageAllocator, pagesFor, pagesTaken } from "./page_table.ts";
import { PrefixTree } from "./prefix_tree.ts";
import { Sequence } from "./sequence.ts";

/** The room that a pool must provide. */
export interface PoolNeed {
  /** Tokens of all sequences that are in the pool at the same time. */
  totalTokens: number;
  /** Tokens of the longest of them. */
  longestTokens: number;
  /** Sequences that decode together. */
  maxSequences: number;
}

/** Page statistics besides mean and standard deviation. */
export interface ExtraStatistics {
  variance: boolean;
  minMax: boolean;
}

/** What these scorers read besides mean and standard deviation. */
export function statisticsFor(scorers: readonly string[]): ExtraStatistics {
  return { variance: scorers.includes("diag"), minMax: scorers.includes("quest") };
}

/** The statistics of a cache whose pages are allocated in groups: coarse copies too, for groups say too little for the scorer of variances. */
export function cacheStatistics(read: ExtraStatistics, groupPages: number): PageStatistics {
  return { ...read, coarse: read.variance && groupPages > 1 };
}

/** Physical pages for `numTokens` tokens of `numSequences` sequences, each of which may leave one group partly empty. */
export function poolPages(numTokens: number, numSequences: number, pageSize: number, groupPages: number): number {
  return pagesTaken(numTokens, pageSize, groupPages) + numSequences * groupPages;
}

/** The cache shape for a model, types, a policy and a need. @param extra statistics for scorers that the policy does not name */
export function cacheShape(
  config: ModelConfig,
  kv: KvFormat,
  policy: PagePolicy,
  need: PoolNeed,
  extra: ExtraStatistics = statisticsFor([]),
): CacheShape {
  const { pageSize, groupPages } = policy;
  const own = statisticsFor([policy.scorer]);
  const read = { variance: own.variance || extra.variance, minMax: own.minMax || extra.minMax };
  return {
    numPages: poolPages(need.totalTokens, need.maxSequences, pageSize, groupPages),
    maxPagesPerSequence: pagesFor(need.longestTokens, pageSize),
    numLayers: config.numLayers,
    numQueryHeads: config.numQueryHeads,
    numKvHeads: config.numKvHeads,
    headDim: config.headDim,
    attentionScale: config.scales.attention,
    pageSize: policy.pageSize,
    ...kv,
    statistics: cacheStatistics(read, groupPages),
    maxSequences: need.maxSequences,
    groupPages: groupPages === 1 ? 0 : groupPages,
  };
}

/** Bytes that move between two caches at a time. */
const COPY_BYTES = 32 << 20;

/** Whether caches of these shapes store the same in a page. */
function sameUnits(one: CacheShape, other: CacheShape): boolean {
  const unitOf = ({ numPages: _, maxPagesPerSequence: __, maxSequences: ___, ...unit }: CacheShape): string =>
    JSON.stringify(Object.entries(unit).sort());
  return unitOf(one) === unitOf(other);
}

/** A KV cache and the book of its pages. */
export class KvPool implements Disposable {
  readonly cache: KvCache;
  readonly allocator: PageAllocator;
  /** Prompts whose pages later sequences can share. */
  readonly prefixes: PrefixTree;
  /** Bytes of a page, or of a group of pages, with statistics, in all layers. */
  readonly unitBytes: number;

  constructor(device: Device, readonly shape: CacheShape) {
    this.allocator = new PageAllocator(shape.numPages, shape.groupPages || 1);
    this.prefixes = new PrefixTree(this.allocator, shape.pageSize);
    this.unitBytes = KvCache.measure(device, shape).unit;
    this.cache = KvCache.create(device, shape);
  }

  /** From here on, prompts are read as a policy says: they share pages with those only that were read alike. */
  readPromptsBy({ prefill, scorer, lambda, sinkPages }: PagePolicy): void {
    this.prefixes.reading = prefill
      ? { name: JSON.stringify({ ...prefill, scorer, lambda, sinkPages }), multiple: PREFILL_TILE_TOKENS }
      : { name: "", multiple: 1 };
  }

  /** Whether this pool can replace one of shape `wanted`. */
  covers(wanted: CacheShape): boolean {
    const { shape } = this;
    return !this.cache.closed && shape.pageSize === wanted.pageSize &&
      shape.groupPages === wanted.groupPages && shape.numPages >= wanted.numPages &&
      shape.maxPagesPerSequence >= wanted.maxPagesPerSequence && shape.maxSequences >= wanted.maxSequences &&
      (shape.statistics.variance || !wanted.statistics.variance) &&
      (shape.statistics.minMax || !wanted.statistics.minMax);
  }

  /** Pages that a sequence of this many tokens allocates. */
  pagesTaken(tokens: number): number {
    return pagesTaken(tokens, this.shape.pageSize, this.allocator.groupPages);
  }

  /** A sequence that begins with what the pool still has of this prompt; empty without one. */
  openSequence(promptIds: readonly number[] = []): Sequence {
    const sequence = new Sequence(this.allocator, this.shape.pageSize);
    const pages = this.prefixes.find(promptIds);
    sequence.adopt(pages, pages.length * this.shape.pageSize);
    return sequence;
  }

  /** Shortens a sequence. Other sequences that share its pages do not change. */
  truncate(sequence: Sequence, length: number): void {
    const { copy, tail } = sequence.truncate(length);
    if (copy) {
      const bytes = new Uint8Array(this.unitBytes);
      this.cache.exportPages([copy.from], bytes);
      this.cache.importPages([copy.to], bytes);
    }
    if (tail) this.cache.renewPage(tail.page, tail.numTokens);
  }

  /** First pages of the groups with the tokens of a sequence in [from, end), both multiples of the tokens of a group. */
  unitsOf(sequence: Sequence, from: number, end: number): number[] {
    const { groupPages } = this.allocator;
    const pages = sequence.pages.slice(from / this.shape.pageSize, end / this.shape.pageSize);
    return pages.filter((_, index) => index % groupPages === 0);
  }

  /**
   * Continues a sequence of whole groups up to `endTokens` with the last tokens of what {@link KvCache.exportPages} copied to `bytes`, whole
   * groups too. Pages that the sequence has already are not written, since others may share them.
   */
  importTokens(sequence: Sequence, endTokens: number, bytes: Uint8Array<ArrayBuffer>): void {
    const from = sequence.length;
    sequence.extend(endTokens - from);
    const units = this.unitsOf(sequence, from, endTokens);
    const numKnown = bytes.length / this.unitBytes - units.length;
    const unused = numKnown > 0 ? [this.allocator.allocate()] : [];
    this.cache.importPages([...Array.from({ length: numKnown }, () => unused[0] ?? 0), ...units], bytes);
    this.allocator.free(unused);
  }

  /** Takes over the prompts that another pool remembers, the latest ones first, as far as there is room. */
  takeOver(other: KvPool): void {
    if (!sameUnits(this.shape, other.shape) || this.unitBytes !== other.unitBytes) return;
    const known = other.prefixes.blocks().slice(0, this.allocator.numFree / this.allocator.groupPages);
    const pages = known.map(() => this.allocator.allocate());
    const batch = Math.max(1, Math.floor(COPY_BYTES / this.unitBytes));
    for (let first = 0; first < known.length; first += batch) {
      const from = known.slice(first, first + batch).map(({ page }) => page);
      const bytes = new Uint8Array(from.length * this.unitBytes);
      other.cache.exportPages(from, bytes);
      this.cache.importPages(pages.slice(first, first + batch), bytes);
    }
    this.prefixes.addBlocks(known.map((block, index) => ({ ...block, page: pages[index] ?? 0 })));
    this.allocator.free(pages);
  }

  /** Bytes of keys and values of one page in one layer and KV head. */
  get pageBytes(): number {
    return 2 * this.shape.pageSize * kvRowBytes(this.shape, this.shape.headDim);
  }

  /** Bytes of statistics that scoring read, by the counters. */
  statisticsBytes({ scorer }: PagePolicy, counters: Counters): number {
    return scoredBytes(scorer, this.shape, counters);
  }

  /** The largest number of bytes of keys and values that were in use at the same time, on all members of a group together. */
  get peakKvBytes(): number {
    const heads = this.shape.numKvHeads * this.cache.device.members;
    return this.allocator.peakUsed * this.pageBytes * this.shape.numLayers * heads;
  }

  [Symbol.dispose](): void {
    this.cache.close();
  }
}
