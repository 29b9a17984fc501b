/** Decode steps that append one token per sequence and attend, for calls that join the two. */
import { Random } from "../../engine/sample/random.ts";
import type { AppendedHeads, HeadRotation, Sequences } from "../../ffi/cache_options.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { ropeTable } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { assertSameContents, contents } from "./cache_contents.ts";
import { normals } from "./cases.ts";
import { settle } from "./device.ts";
import { type FloatType, uploadAs } from "./numbers.ts";
import { cacheShape, type PagedShape, slotsOf } from "./paged.ts";

const GROUP_PAGES = 8;

export interface AppendedShape extends PagedShape {
  /** Tokens that the pages of a sequence hold. */
  mostTokens: number;
}

export interface StepOptions {
  normWeights?: FloatType;
  rotaryDim?: number;
  /** Makes every key a multiple of the first query that reads it, so that its page scores high. */
  keysLikeQueries?: boolean;
}

export interface Step extends AppendedHeads {
  rotation: HeadRotation;
  sequences: Sequences;
  out: Tensor;
}

/** Physical pages of a sequence, in whole groups, none at its logical place. */
export function pagesOf({ pageSize, mostTokens }: AppendedShape, sequence = 0): number[] {
  const count = mostTokens / pageSize, groups = count / GROUP_PAGES;
  const group = (page: number): number => sequence * groups + (Math.floor(page / GROUP_PAGES) * 5 + 3) % groups;
  return Array.from({ length: count }, (_, page) => group(page) * GROUP_PAGES + page % GROUP_PAGES);
}

/** q, k and v of a row, one after another. */
function projections(random: Random, shape: AppendedShape, keysLikeQueries: boolean): Float32Array<ArrayBuffer> {
  const { numQueryHeads, numKvHeads, headDim } = shape;
  const row = normals(random, (numQueryHeads + 2 * numKvHeads) * headDim);
  if (!keysLikeQueries) return row;
  const firstKey = numQueryHeads * headDim, groupWidth = firstKey / numKvHeads;
  for (let i = 0; i < numKvHeads * headDim; i++) {
    row[firstKey + i] = 4 * row[Math.floor(i / headDim) * groupWidth + i % headDim]!;
  }
  return row;
}

/** The inputs of a step of sequences with tokens at these positions; the same for the same positions. */
export function stepAt(
  device: Device,
  shape: AppendedShape,
  positions: readonly number[],
  { normWeights, rotaryDim, keysLikeQueries = false }: StepOptions = {},
): Step {
  const { numQueryHeads, numKvHeads, headDim, pageSize } = shape;
  const batch = positions.length, random = new Random(positions[0]! + 1);
  const width = (numQueryHeads + 2 * numKvHeads) * headDim, queryWidth = numQueryHeads * headDim;
  const rows = positions.flatMap(() => Array.from(projections(random, shape, keysLikeQueries)));
  const qkv = device.upload(Float32Array.from(rows), [batch, width]);
  const pairs = (rotaryDim ?? headDim) / 2;
  const table = device.createTensor("f32", [batch, 2 * pairs]);
  const frequencies = device.upload(Float32Array.from({ length: pairs }, (_, i) => 0.9 ** i), [pairs]);
  const scale = { scale: 1, positionBeta: 0, positionOrigin: 1 };
  ropeTable(device, device.upload(Int32Array.from(positions), [batch]), frequencies, scale, table);
  const weight = (dtype: FloatType): Tensor => uploadAs(device, dtype, normals(random, headDim), [headDim]);
  const norm = normWeights && { query: weight(normWeights), key: weight(normWeights), eps: 1e-6 };
  const tables = positions.map((_, sequence) => pagesOf(shape, sequence));
  const slots = positions.flatMap((position, b) => Array.from(slotsOf(tables[b]!, pageSize, position, 1)));
  return {
    rotation: { norm, queryTable: table, keyTable: table },
    q: qkv.columns(0, queryWidth).heads(numQueryHeads),
    k: qkv.columns(queryWidth, numKvHeads * headDim).heads(numKvHeads),
    v: qkv.columns(queryWidth + numKvHeads * headDim, numKvHeads * headDim).heads(numKvHeads),
    slots: device.upload(Int32Array.from(slots), [batch]),
    sequences: {
      pageTable: device.upload(Int32Array.from(tables.flat()), [batch, tables[0]!.length]),
      lengths: device.upload(Int32Array.from(positions, (position) => position + 1), [batch]),
    },
    out: device.createTensor("f32", [batch, numQueryHeads, headDim]),
  };
}

/** Two caches of the same contents: sequences that end before these positions. */
export function twoCaches(
  device: Device,
  shape: AppendedShape,
  groupPages: 0 | 8,
  positions: readonly number[],
): [KvCache, KvCache] {
  const pages = pagesOf(shape).length;
  const overrides = { groupPages, numPages: positions.length * pages, maxPagesPerSequence: pages };
  const create = (): KvCache => {
    const cache = KvCache.create(device, cacheShape(shape, overrides));
    positions.forEach((tokens, sequence) => fill(cache, shape, sequence, tokens));
    return cache;
  };
  return [create(), create()];
}

/** The first tokens of a sequence, so that pages hold tokens already. */
function fill(cache: KvCache, shape: AppendedShape, sequence: number, tokens: number): void {
  if (tokens === 0) return;
  const { device } = cache, { numKvHeads, headDim, pageSize } = shape;
  const random = new Random(tokens);
  const heads = (): Tensor =>
    device.upload(normals(random, tokens * numKvHeads * headDim), [tokens, numKvHeads, headDim]);
  const slots = device.upload(slotsOf(pagesOf(shape, sequence), pageSize, 0, tokens), [tokens]);
  cache.append(0, heads(), heads(), slots);
}

/** Asserts that sequences of these lengths lie in both caches alike. */
export function assertSameCaches(
  found: KvCache,
  wanted: KvCache,
  shape: AppendedShape,
  lengths: readonly number[],
): void {
  lengths.forEach((tokens, sequence) => {
    const pages = pagesOf(shape, sequence).slice(0, Math.ceil(tokens / shape.pageSize));
    assertSameContents(contents(found, pages, tokens), contents(wanted, pages, tokens));
  });
}

/** Runs calls one by one, or in one recording. */
export function runAll(device: Device, recorded: boolean, calls: () => void): void {
  if (!recorded) return calls();
  const graph = device.record(calls);
  graph.launch();
  settle(device);
  graph.close();
}
