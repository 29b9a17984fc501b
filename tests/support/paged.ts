/** Sequences whose keys and values lie in the shuffled pages of a cache. */
import type { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache, type Sequences } from "../../ffi/kv_cache.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { type KvType, throughKvType } from "../reference/kv_types.ts";
import type { HeadShape } from "../reference/numbers.ts";
import { driftingKeys, normals, shuffled } from "./cases.ts";
import { type FloatType, rounded } from "./numbers.ts";

export interface PagedShape extends HeadShape {
  dtype: FloatType;
  /** Of keys and values in 8 bits. */
  kvType?: KvType;
  pageSize: number;
}

/** Keys and values `[n, Hk, d]` of one sequence. */
export interface KeysAndValues {
  keys: Float32Array<ArrayBuffer>;
  values: Float32Array<ArrayBuffer>;
}

/** A batch of sequences in the first layer of one cache. */
export interface Paged {
  device: Device;
  cache: KvCache;
  shape: PagedShape;
  /** As stored: rounded to the type of the pages. */
  stored: KeysAndValues[];
  /** Tokens of each sequence. */
  tokens: number[];
  /** Physical pages of each sequence. */
  tables: number[][];
  sequences: Sequences;
}

/** Groups, of one page where the cache keeps none, that belong to nobody. */
const SPARE_GROUPS = 3;
/** What a page table holds past the last page of its sequence; must never be read. */
const NO_PAGE = -1;

export function cacheShape(shape: PagedShape, overrides: Partial<CacheShape> = {}): CacheShape {
  const { dtype, kvType, pageSize, numQueryHeads, numKvHeads, headDim } = shape;
  return {
    ...{ dtype, pageSize, numQueryHeads, numKvHeads, headDim, ...kvType && { kvType } },
    ...{ numPages: 8, maxPagesPerSequence: 8, numLayers: 1, maxSequences: 4 },
    statistics: { variance: true, minMax: true },
    ...overrides,
  };
}

export function randomSequence(random: Random, shape: HeadShape, tokens: number): KeysAndValues {
  return {
    keys: driftingKeys(random, tokens, shape),
    values: normals(random, tokens * shape.numKvHeads * shape.headDim),
  };
}

/** Keys or values as the cache has them. */
function asStored({ dtype, kvType, headDim }: PagedShape, numbers: Float32Array): Float32Array<ArrayBuffer> {
  return kvType ? throughKvType(kvType, numbers, headDim) : rounded(dtype, numbers);
}

/** Slots of the tokens [first, first + count) of a sequence that lies in the pages of `table`. */
export function slotsOf(
  table: readonly number[],
  pageSize: number,
  first: number,
  count: number,
): Int32Array<ArrayBuffer> {
  return Int32Array.from({ length: count }, (_, i) => {
    const token = first + i;
    return table[Math.floor(token / pageSize)]! * pageSize + token % pageSize;
  });
}

/** Appends keys and values `[n, Hk, d]` at the given slots of a layer. */
export function appendAt(
  cache: KvCache,
  { keys, values }: KeysAndValues,
  slots: Int32Array<ArrayBuffer>,
  layer = 0,
): void {
  const { numKvHeads, headDim } = cache.shape;
  const shape = [slots.length, numKvHeads, headDim];
  const tensors = [cache.device.upload(keys, shape), cache.device.upload(values, shape)] as const;
  const places = cache.device.upload(slots, [slots.length]);
  cache.append(layer, ...tensors, places);
  for (const { buffer } of [...tensors, places]) buffer.close();
}

function uploadTables(device: Device, tables: number[][], maxPages: number): Sequences["pageTable"] {
  const rows = tables.flatMap((table) => [...table, ...new Array<number>(maxPages - table.length).fill(NO_PAGE)]);
  return device.upload(Int32Array.from(rows), [tables.length, maxPages]);
}

/** Takes pages for a sequence: neighbours of as many of the shuffled groups as it needs. */
function dealTable(freeGroups: number[], count: number, groupPages: number): number[] {
  const groups = freeGroups.splice(0, Math.ceil(count / groupPages));
  return groups.flatMap((group) => Array.from({ length: groupPages }, (_, i) => group * groupPages + i)).slice(
    0,
    count,
  );
}

/** Makes a cache, deals out its pages in random order (groups of neighbours where it keeps `groupPages`), and appends every sequence. */
export function buildPaged(
  device: Device,
  shape: PagedShape,
  parts: KeysAndValues[],
  random: Random,
  overrides: Partial<CacheShape> = {},
): Paged {
  const tokens = parts.map(({ keys }) => keys.length / (shape.numKvHeads * shape.headDim));
  const pages = tokens.map((count) => Math.ceil(count / shape.pageSize));
  const groupPages = overrides.groupPages || 1;
  const numPages = groupPages * pages.reduce((sum, count) => sum + Math.ceil(count / groupPages), SPARE_GROUPS);
  const maxPagesPerSequence = Math.max(...pages) + 1;
  const cache = KvCache.create(device, cacheShape(shape, { numPages, maxPagesPerSequence, ...overrides }));
  const free = shuffled(random, cache.shape.numPages / groupPages);
  const tables = pages.map((count) => dealTable(free, count, groupPages));
  parts.forEach((part, b) => appendAt(cache, part, slotsOf(tables[b]!, shape.pageSize, 0, tokens[b]!)));
  return {
    ...{ device, cache, shape, tokens, tables },
    stored: parts.map(({ keys, values }) => ({
      keys: asStored(shape, keys),
      values: asStored(shape, values),
    })),
    sequences: {
      pageTable: uploadTables(device, tables, cache.shape.maxPagesPerSequence),
      lengths: device.upload(Int32Array.from(tokens), [tokens.length]),
    },
  };
}

/** As {@link buildPaged}, but `stored` stays as given, for tests that do not read it: rounding long sequences takes longest of all. */
export function buildUnrounded(
  device: Device,
  shape: PagedShape,
  parts: KeysAndValues[],
  random: Random,
  overrides: Partial<CacheShape> = {},
): Paged {
  const { kvType, ...plain } = shape;
  const kept = { dtype: shape.dtype, ...kvType && { kvType }, ...overrides };
  return { ...buildPaged(device, { ...plain, dtype: "f32" }, parts, random, kept), shape };
}
