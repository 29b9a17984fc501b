import { decodeAttention, inWindow, type Sees } from "./decode_attention.ts";
import type { HeadShape, Numbers } from "./numbers.ts";
import { pageScores, type Scorer } from "./page_score.ts";
import { selectPages } from "./page_select.ts";
import { pageStatistics } from "./page_statistics.ts";

/** Tokens of a tile whose queries score pages. */
const SAMPLED_TOKENS = 16;

export interface PromptShape extends HeadShape {
  pageSize: number;
}

export interface PromptOptions {
  tileTokens: number;
  k: number;
  scorer: Scorer;
  lambda?: number;
  sinkPages?: number;
  recentPages?: number;
}

/** Positions [first, end) of the tiles of the tokens [start, start + tokens). */
export function promptTiles(start: number, tokens: number, tileTokens: number): { first: number; end: number }[] {
  const [from, to] = [Math.floor(start / tileTokens), Math.floor((start + tokens - 1) / tileTokens)];
  return Array.from({ length: to - from + 1 }, (_, i) => ({
    first: Math.max(start, (from + i) * tileTokens),
    end: Math.min(start + tokens, (from + i + 1) * tileTokens),
  }));
}

/** Positions of the sampled tokens of a tile: at equal distances, the last one included. */
function sampledPositions({ first, end }: { first: number; end: number }): number[] {
  const samples = Math.min(SAMPLED_TOKENS, end - first);
  return Array.from({ length: samples }, (_, i) => first + Math.floor((i + 1) * (end - first) / samples) - 1);
}

/** The scores of one query `[Hq, d]`, head by head `[Hq][page]`. */
function headScores(
  query: Numbers,
  pages: ReturnType<typeof pageStatistics>,
  heads: HeadShape,
  options: PromptOptions,
): number[][] {
  const group = heads.numQueryHeads / heads.numKvHeads;
  return Array.from({ length: heads.numQueryHeads }, (_, h) => {
    const one = { numQueryHeads: 1, numKvHeads: 1, headDim: heads.headDim };
    const head = Math.floor(h / group);
    const own = Array.from(query).slice(h * heads.headDim, (h + 1) * heads.headDim);
    return pageScores(own, pages.map((page) => [page[head]!]), one, options.scorer, options.lambda)[0]!;
  });
}

/**
 * Rows (tile, KV head) of scores of the pages before each tile: the sum of the page's shares in the scores of the sampled queries
 * and heads of the group, each as a softmax over the pages that compete. q `[T, Hq, d]` of the tokens from `start` on, k `[n, Hk, d]`.
 */
export function promptScores(
  q: Numbers,
  k: Numbers,
  shape: PromptShape,
  start: number,
  options: PromptOptions,
): number[][] {
  const { numQueryHeads, numKvHeads, headDim, pageSize } = shape;
  const width = numQueryHeads * headDim;
  const statistics = pageStatistics(k, numKvHeads, headDim, pageSize);
  const group = numQueryHeads / numKvHeads;
  return promptTiles(start, q.length / width, options.tileTokens).flatMap((tile) => {
    const pages = statistics.slice(0, Math.floor(tile.first / pageSize));
    const { first, end } = competing(pages.length, options);
    const queries = sampledPositions(tile).map((position) => {
      const from = (position - start) * width;
      return headScores(Array.from(q).slice(from, from + width), pages, shape, options);
    });
    return Array.from({ length: numKvHeads }, (_, head) => {
      const rows = queries.flatMap((scores) => scores.slice(head * group, (head + 1) * group)).map((scores) => {
        const scaled = scores.map((score) => score / Math.sqrt(headDim));
        const numbers = scaled.slice(first, end).filter((score) => !Number.isNaN(score));
        const largest = numbers.reduce((a, b) => Math.max(a, b), -Infinity);
        const sum = largest + Math.log(numbers.reduce((total, score) => total + Math.exp(score - largest), 0));
        return scaled.map((score) => Math.exp(score - sum));
      });
      return pages.map((_, page) => rows.reduce((total, row) => total + row[page]!, 0));
    });
  });
}

/** Pages [first, end) of `pages` are not selected whatever their scores. */
function competing(
  pages: number,
  { k, sinkPages = 1, recentPages = 2 }: PromptOptions,
): { first: number; end: number } {
  const last = Math.min(recentPages, k);
  return { first: Math.min(sinkPages, k - last), end: pages - last };
}

/** Rows (tile, KV head) of selected pages. */
export function choosePromptPages(
  q: Numbers,
  k: Numbers,
  shape: PromptShape,
  start: number,
  options: PromptOptions,
): number[][] {
  const { sinkPages = 1, recentPages = 2 } = options;
  return promptScores(q, k, shape, start, options).map((scores) =>
    selectPages(scores, options.k, sinkPages, recentPages)
  );
}

/** `[T, Hq, d]` where a token sees the selected pages of its tile and the tile's own pages up to itself. */
export function sparsePrefillAttention(
  q: Numbers,
  k: Numbers,
  v: Numbers,
  shape: PromptShape,
  start: number,
  tileTokens: number,
  selected: readonly (readonly number[])[],
): Float64Array {
  const width = shape.numQueryHeads * shape.headDim;
  const out = new Float64Array(q.length);
  promptTiles(start, q.length / width, tileTokens).forEach(({ first, end }, tile) => {
    const sets = Array.from(
      { length: shape.numKvHeads },
      (_, head) => new Set(selected[tile * shape.numKvHeads + head]),
    );
    const ownPage = Math.floor(first / shape.pageSize);
    for (let position = first; position < end; position++) {
      const before = inWindow(position + 1, 0);
      const sees: Sees = (token, head) => {
        const page = Math.floor(token / shape.pageSize);
        return before(token, head) && (page >= ownPage || sets[head]!.has(page));
      };
      const from = (position - start) * width;
      out.set(decodeAttention(Array.from(q).slice(from, from + width), k, v, shape, sees), from);
    }
  });
  return out;
}
