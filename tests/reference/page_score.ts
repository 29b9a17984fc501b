import type { HeadShape, Numbers } from "./numbers.ts";
import type { PageStatistics } from "./page_statistics.ts";

export type Scorer = "unique" | "diag" | "quest" | "mean";
export const SCORERS: readonly Scorer[] = ["unique", "diag", "quest", "mean"];

function sumOf(q: Numbers, term: (x: number, i: number) => number): number {
  return Array.from(q).reduce((sum, x, i) => sum + term(x, i), 0);
}

function scoreOf(q: Numbers, page: PageStatistics, scorer: Scorer, lambda: number | undefined): number {
  if (scorer === "quest") {
    return sumOf(q, (x, i) => Math.max(x, 0) * page.max[i]! + Math.min(x, 0) * page.min[i]!);
  }
  const mean = sumOf(q, (x, i) => x * page.mean[i]!);
  if (scorer === "unique") return mean + (lambda ?? 0.5) * Math.sqrt(sumOf(q, (x) => x * x)) * page.std;
  if (scorer === "diag") return mean + (lambda ?? 2) * Math.sqrt(sumOf(q, (x, i) => x * x * page.variance[i]!));
  return mean;
}

/** `[KV head][page]`: the largest score over the query heads of the KV head's group. q `[Hq, d]`, pages `[page][KV head]`. */
export function pageScores(
  q: Numbers,
  pages: readonly PageStatistics[][],
  heads: HeadShape,
  scorer: Scorer,
  lambda?: number,
): number[][] {
  const group = heads.numQueryHeads / heads.numKvHeads;
  const queries = Array.from(
    { length: heads.numQueryHeads },
    (_, h) => Array.from(q).slice(h * heads.headDim, (h + 1) * heads.headDim),
  );
  return Array.from(
    { length: heads.numKvHeads },
    (_, j) =>
      pages.map((page) =>
        Math.max(...queries.slice(j * group, (j + 1) * group).map((query) => scoreOf(query, page[j]!, scorer, lambda)))
      ),
  );
}
