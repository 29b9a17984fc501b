/** Append and attention of decode steps in one call against the two calls, bit for bit. */
import { Random } from "../../engine/sample/random.ts";
import type { HeadRotation, Sequences } from "../../ffi/cache_options.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { ropeTable } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { assertSameContents, contents } from "../support/cache_contents.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { type FloatType, uploadAs } from "../support/numbers.ts";
import { cacheShape, type PagedShape, slotsOf } from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 64 };
const MOST_TOKENS = 768;
const GROUP_PAGES = 8;

interface Case {
  shape?: Partial<PagedShape>;
  /** Tokens in the cache before. */
  before: number;
  normWeights?: FloatType;
  rotaryDim?: number;
  window?: number;
}

const CASES: Record<string, Case> = {
  "the first token": { before: 0 },
  "a token in the middle of a page": { before: 12, normWeights: "bf16" },
  "the last token of a page": { before: 15 },
  "the first token of a page": { before: 16, normWeights: "f32" },
  "a sequence of several splits": { before: 700, normWeights: "bf16" },
  "a sequence that ends with a split": { before: 511 },
  "f16 pages": { shape: { dtype: "f16" }, before: 133 },
  "heads of 128": { shape: { headDim: 128 }, before: 300, normWeights: "f16" },
  "one query head per KV head": { shape: { numQueryHeads: 2 }, before: 70 },
  "16 query heads per KV head": { shape: { numQueryHeads: 16, numKvHeads: 1 }, before: 90 },
  "a sliding window": { before: 300, window: 100 },
  "a rotation of 32 dimensions": { before: 40, rotaryDim: 32 },
  "heads of 80": { shape: { headDim: 80 }, before: 40 },
  "pages of 16 tokens": { shape: { pageSize: 16 }, before: 40 },
  "f32 pages": { shape: { dtype: "f32" }, before: 40 },
  "pages in 8 bits": { shape: { kvType: "q8" }, before: 40 },
};

interface Token {
  rotation: HeadRotation;
  q: Tensor;
  k: Tensor;
  v: Tensor;
  slots: Tensor;
  sequences: Sequences;
  out: Tensor;
}

/** Physical pages of the longest sequence, in whole groups, none at its logical place. */
function pagesOf({ pageSize }: PagedShape): number[] {
  const count = MOST_TOKENS / pageSize, groups = count / GROUP_PAGES;
  const group = (page: number): number => (Math.floor(page / GROUP_PAGES) * 5 + 3) % groups;
  return Array.from({ length: count }, (_, page) => group(page) * GROUP_PAGES + page % GROUP_PAGES);
}

/** The inputs of the token at a position; the same for the same position. */
function tokenAt(device: Device, shape: PagedShape, position: number, { normWeights, rotaryDim }: Case): Token {
  const { numQueryHeads, numKvHeads, headDim, pageSize } = shape;
  const random = new Random(position + 1);
  const width = (numQueryHeads + 2 * numKvHeads) * headDim, queryWidth = numQueryHeads * headDim;
  const qkv = device.upload(normals(random, width), [1, width]);
  const pairs = (rotaryDim ?? headDim) / 2;
  const table = device.createTensor("f32", [1, 2 * pairs]);
  const frequencies = device.upload(Float32Array.from({ length: pairs }, (_, i) => 0.9 ** i), [pairs]);
  const scale = { scale: 1, positionBeta: 0, positionOrigin: 1 };
  ropeTable(device, device.upload(Int32Array.of(position), [1]), frequencies, scale, table);
  const weight = (dtype: FloatType): Tensor => uploadAs(device, dtype, normals(random, headDim), [headDim]);
  const norm = normWeights && { query: weight(normWeights), key: weight(normWeights), eps: 1e-6 };
  const pages = pagesOf(shape);
  return {
    rotation: { norm, queryTable: table, keyTable: table },
    q: qkv.columns(0, queryWidth).heads(numQueryHeads),
    k: qkv.columns(queryWidth, numKvHeads * headDim).heads(numKvHeads),
    v: qkv.columns(queryWidth + numKvHeads * headDim, numKvHeads * headDim).heads(numKvHeads),
    slots: device.upload(slotsOf(pages, pageSize, position, 1), [1]),
    sequences: {
      pageTable: device.upload(Int32Array.from(pages), [1, pages.length]),
      lengths: device.upload(Int32Array.of(position + 1), [1]),
    },
    out: device.createTensor("f32", [1, numQueryHeads, headDim]),
  };
}

function createCache(device: Device, shape: PagedShape, groupPages: 0 | 8): KvCache {
  const pages = pagesOf(shape).length;
  return KvCache.create(device, cacheShape(shape, { groupPages, numPages: pages, maxPagesPerSequence: pages }));
}

/** Fills the places before a position, so that pages hold tokens already. */
function fill(device: Device, cache: KvCache, shape: PagedShape, tokens: number): void {
  if (tokens === 0) return;
  const random = new Random(tokens);
  const heads = (): Tensor =>
    device.upload(normals(random, tokens * shape.numKvHeads * shape.headDim), [
      tokens,
      shape.numKvHeads,
      shape.headDim,
    ]);
  cache.append(0, heads(), heads(), device.upload(slotsOf(pagesOf(shape), shape.pageSize, 0, tokens), [tokens]));
}

function inParts(cache: KvCache, { rotation, q, k, v, slots, sequences, out }: Token, window: number): void {
  cache.appendRotated(0, rotation, q, k, v, slots);
  cache.attend(0, q, sequences, out, { window });
}

for (const groupPages of [0, 8] as const) {
  for (const [name, given] of Object.entries(CASES)) {
    const groups = groupPages === 0 ? "" : " with groups of pages";
    deviceTest(`appendAttend gives what append and attention give for ${name}${groups}`, (device) => {
      const shape = { ...SHAPE, ...given.shape };
      const { before, window = 0 } = given;
      const [joined, parted] = [0, 1].map(() => createCache(device, shape, groupPages)) as [KvCache, KvCache];
      for (const cache of [joined, parted]) fill(device, cache, shape, before);
      const [one, other] = [0, 1].map(() => tokenAt(device, shape, before, given)) as [Token, Token];
      joined.appendAttend(0, one.rotation, one, one.sequences, one.out, { window });
      inParts(parted, other, window);
      assertNumbersClose(one.out.readFloats(), other.out.readFloats(), one.out.shape);
      const pages = pagesOf(shape).slice(0, Math.ceil((before + 1) / shape.pageSize));
      assertSameContents(contents(joined, pages, before + 1), contents(parted, pages, before + 1));
    });
  }
}

for (const recorded of [false, true]) {
  const how = recorded ? "in one recording" : "without a copy between them";
  deviceTest(`appendAttend of tokens that follow each other ${how}`, (device) => {
    if (recorded && !device.records) return;
    const [joined, parted] = [0, 1].map(() => createCache(device, SHAPE, 8)) as [KvCache, KvCache];
    for (const cache of [joined, parted]) fill(device, cache, SHAPE, 60);
    const tokens = Array.from({ length: 12 }, (_, i) => tokenAt(device, SHAPE, 60 + i, { before: 0 }));
    const others = Array.from({ length: 12 }, (_, i) => tokenAt(device, SHAPE, 60 + i, { before: 0 }));
    const run = (): void => {
      for (const one of tokens) joined.appendAttend(0, one.rotation, one, one.sequences, one.out);
    };
    if (recorded) {
      const graph = device.record(run);
      graph.launch();
      for (const { out } of tokens) out.readFloats();
      graph.close();
    } else run();
    for (const other of others) {
      inParts(parted, other, 0);
      other.out.readFloats();
    }
    tokens.forEach(({ out }, i) => assertSameBits(out.readFloats(), others[i]!.out.readFloats(), out.shape));
    const pages = pagesOf(SHAPE).slice(0, 9);
    assertSameContents(contents(joined, pages, 72), contents(parted, pages, 72));
  });
}
