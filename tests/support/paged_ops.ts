/** The cache's operations on a batch of paged sequences, numbers in and numbers out. */
import type { Selection } from "../../ffi/kv_cache.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import type { Scorer } from "../reference/page_score.ts";
import type { Paged } from "./paged.ts";

function pagesOf(paged: Paged, sequence: number): number {
  return Math.ceil(paged.tokens[sequence]! / paged.shape.pageSize);
}

/** `[B, Hk, M]` on the device; places past a sequence's pages hold infinity, which nothing may choose. */
export function scoreTensor(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  scorer: Scorer = "unique",
  lambda?: number,
): Tensor {
  const { device, cache, shape, tokens } = paged;
  const size = [tokens.length, shape.numKvHeads, cache.shape.maxPagesPerSequence];
  const scores = device.upload(new Float32Array(size.reduce((a, b) => a * b)).fill(Infinity), size);
  const query = device.upload(q, [tokens.length, shape.numQueryHeads, shape.headDim]);
  cache.scorePages(0, query, paged.sequences, scores, { scorer, ...(lambda === undefined ? {} : { lambda }) });
  return scores;
}

/** One row of scores for each sequence and KV head. */
export function scoreRows(paged: Paged, scores: Tensor): Float32Array[] {
  const [heads, maxPages] = [paged.shape.numKvHeads, paged.cache.shape.maxPagesPerSequence];
  const numbers = scores.readFloats();
  return Array.from({ length: paged.tokens.length * heads }, (_, row) => {
    const first = row * maxPages;
    return numbers.slice(first, first + pagesOf(paged, Math.floor(row / heads)));
  });
}

/** Room for k pages per row. */
export function emptySelection(paged: Paged, k: number): Selection {
  const rows = [paged.tokens.length, paged.shape.numKvHeads];
  return { selected: paged.device.createTensor("i32", [...rows, k]), counts: paged.device.createTensor("i32", rows) };
}

export interface SelectOptions {
  k: number;
  sinkPages?: number;
  recentPages?: number;
}

export function select(paged: Paged, scores: Tensor, options: SelectOptions): Selection {
  const selection = emptySelection(paged, options.k);
  paged.cache.selectPages(scores, paged.sequences.lengths, selection, options);
  return selection;
}

/** The chosen pages of each sequence and KV head. */
export function selectionRows({ selected, counts }: Selection): number[][] {
  const k = selected.shape[2]!;
  const pages = selected.readInts();
  return Array.from(counts.readInts(), (count, row) => Array.from(pages.slice(row * k, row * k + count)));
}

/** A selection of the pages in `rows`. */
export function uploadSelection(paged: Paged, rows: readonly (readonly number[])[]): Selection {
  const k = Math.max(...rows.map((row) => row.length));
  const selection = emptySelection(paged, k);
  selection.selected.write(
    Int32Array.from(rows.flatMap((row) => [...row, ...new Array<number>(k - row.length).fill(-1)])),
  );
  selection.counts.write(Int32Array.from(rows, (row) => row.length));
  return selection;
}

export interface ChooseOptions extends SelectOptions {
  scorer?: Scorer;
  lambda?: number;
}

/** The pages that `choosePages` takes for q `[B, Hq, d]`. */
export function choose(paged: Paged, q: Float32Array<ArrayBuffer>, options: ChooseOptions): Selection {
  const { device, cache, shape, tokens } = paged;
  const scores = device.createTensor("f32", [tokens.length, shape.numKvHeads, cache.shape.maxPagesPerSequence]);
  const query = device.upload(q, [tokens.length, shape.numQueryHeads, shape.headDim]);
  const selection = emptySelection(paged, options.k);
  cache.choosePages(0, query, paged.sequences, scores, selection, options);
  return selection;
}

export interface AttendOptions {
  selection?: Selection;
  window?: number;
  scale?: number;
}

/** `[B, Hq, d]`. */
export function attend(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  options: AttendOptions = {},
): Float32Array<ArrayBuffer> {
  const { device, cache, shape, tokens } = paged;
  const size = [tokens.length, shape.numQueryHeads, shape.headDim];
  const out = device.upload(new Float32Array(q.length).fill(NaN), size);
  cache.attend(0, device.upload(q, size), paged.sequences, out, options);
  return out.readFloats();
}

/** `[T, Hq, d]` of T tokens of the first sequence, the first of them at position `start`. */
export function attendPrefill(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  start: number,
  window = 0,
): Float32Array<ArrayBuffer> {
  const { device, cache, shape, tables } = paged;
  const width = shape.numQueryHeads * shape.headDim;
  const size = [q.length / width, shape.numQueryHeads, shape.headDim];
  const out = device.upload(new Float32Array(q.length).fill(NaN), size);
  const table = device.upload(Int32Array.from(tables[0]!), [tables[0]!.length]);
  cache.attendPrefill(0, start, device.upload(q, size), table, out, { window });
  return out.readFloats();
}

export interface PromptChoice extends ChooseOptions {
  tileTokens: number;
}

function rowsOfTiles(
  { shape }: Paged,
  q: Float32Array,
  start: number,
  tileTokens: number,
): [tiles: number, heads: number] {
  const tokens = q.length / (shape.numQueryHeads * shape.headDim);
  const tiles = Math.floor((start + tokens - 1) / tileTokens) - Math.floor(start / tileTokens) + 1;
  return [tiles, shape.numKvHeads];
}

/** Rows (tile, KV head) of the pages that tiles of the first sequence's tokens from `start` on choose, q `[T, Hq, d]`. */
export function choosePromptRows(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  start: number,
  options: PromptChoice,
): number[][] {
  const { device, cache, shape, tables } = paged;
  const rows = rowsOfTiles(paged, q, start, options.tileTokens);
  const selection = {
    selected: device.createTensor("i32", [...rows, options.k]),
    counts: device.createTensor("i32", rows),
  };
  const query = device.upload(q, [
    q.length / (shape.numQueryHeads * shape.headDim),
    shape.numQueryHeads,
    shape.headDim,
  ]);
  const table = device.upload(Int32Array.from(tables[0]!), [tables[0]!.length]);
  cache.choosePromptPages(0, start, query, table, selection, options);
  return selectionRows(selection);
}

/** A selection of the pages in `rows` (tile, KV head) of `tiles` tiles. */
export function uploadTileSelection(paged: Paged, rows: readonly (readonly number[])[], tiles: number): Selection {
  const { device, shape } = paged;
  const k = Math.max(1, ...rows.map((row) => row.length));
  const padded = rows.flatMap((row) => [...row, ...new Array<number>(k - row.length).fill(-1)]);
  return {
    selected: device.upload(Int32Array.from(padded), [tiles, shape.numKvHeads, k]),
    counts: device.upload(Int32Array.from(rows, (row) => row.length), [tiles, shape.numKvHeads]),
  };
}

/** `[T, Hq, d]` of T tokens of the first sequence over the pages of `rows` and those of their tiles. */
export function attendPromptPages(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  start: number,
  tileTokens: number,
  rows: readonly (readonly number[])[],
): Float32Array<ArrayBuffer> {
  const { device, cache, shape, tables } = paged;
  const size = [q.length / (shape.numQueryHeads * shape.headDim), shape.numQueryHeads, shape.headDim];
  const out = device.upload(new Float32Array(q.length).fill(NaN), size);
  const table = device.upload(Int32Array.from(tables[0]!), [tables[0]!.length]);
  const selection = uploadTileSelection(paged, rows, rowsOfTiles(paged, q, start, tileTokens)[0]);
  cache.attendPrefillSparse(0, start, device.upload(q, size), table, selection, out, { tileTokens });
  return out.readFloats();
}

/** Sparse attention `[B, Hq, d]` in one call, and the pages it took. */
export function attendSparse(
  paged: Paged,
  q: Float32Array<ArrayBuffer>,
  options: ChooseOptions,
): { out: Float32Array<ArrayBuffer>; selection: Selection } {
  const { device, cache, shape, tokens } = paged;
  const size = [tokens.length, shape.numQueryHeads, shape.headDim];
  const out = device.upload(new Float32Array(q.length).fill(NaN), size);
  const scores = device.createTensor("f32", [tokens.length, shape.numKvHeads, cache.shape.maxPagesPerSequence]);
  const selection = emptySelection(paged, options.k);
  cache.attendSparse(0, device.upload(q, size), paged.sequences, { scores, selection }, out, options);
  return { out: out.readFloats(), selection };
}
