import type { Numbers } from "./numbers.ts";

/** Larger first, NaN below every number, equal scores by page. */
function compareScores(scores: Numbers, a: number, b: number): number {
  const [x, y] = [scores[a]!, scores[b]!];
  if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || a - b;
  return x === y ? a - b : x > y ? -1 : 1;
}

/** The k pages of one row, ascending; all of them when there are not more than k. */
export function selectPages(scores: Numbers, k: number, sinkPages: number, recentPages: number): number[] {
  const pages = Array.from({ length: scores.length }, (_, page) => page);
  if (pages.length <= k) return pages;
  const recent = pages.slice(pages.length - Math.min(recentPages, k));
  const sink = pages.slice(0, Math.min(sinkPages, k - recent.length)).filter((page) => !recent.includes(page));
  const forced = new Set([...recent, ...sink]);
  const rest = pages.filter((page) => !forced.has(page)).sort((a, b) => compareScores(scores, a, b));
  return [...forced, ...rest.slice(0, k - forced.size)].sort((a, b) => a - b);
}
