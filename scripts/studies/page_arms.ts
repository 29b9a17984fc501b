/** Ways to select pages for a query: which statistics are scored, on how many levels, and how many bytes that reads. */
import { ENCODINGS, type Row } from "./encodings.ts";

export const LAMBDA = 0.5;
export const SINK_PAGES = 1;
export const RECENT_PAGES = 2;

/** One layer and KV head. */
export interface HeadPages {
  layer: number;
  /** `[P * S, d]` */
  keys: Row;
  /** `[P, d]` for every encoding, as decoded */
  means: Map<string, Row>;
  /** `[P]` */
  std: Row;
  stdBf16: Row;
  centre: Row;
}

/** The query heads of one KV head at one step, and the pages they select from. */
export interface Search {
  pages: HeadPages;
  /** `[g, d]` */
  queries: Row[];
  numPages: number;
  /** Pages to select besides those that are always read. */
  room: number;
}

export interface Arm {
  label: string;
  /** Bytes read per page of context, for means of d numbers if `share` of the pages is selected. */
  bytes: (d: number, share: number) => number;
  choose: (search: Search) => number[];
  /** `[layers]`: sum of the shares that agree, and how many; softmax mass retained */
  agreed: number[];
  rows: number[];
  mass: number;
}

export function dot(a: Row, b: Row, offset: number): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += (a[index] ?? 0) * (b[offset + index] ?? 0);
  return sum;
}

/** The largest score over the group of every listed row. means `[n, d]`, spread `[n]`. */
function scoreRows(
  queries: readonly Row[],
  means: Row,
  spread: Row,
  lambda: number,
  rows: Iterable<number>,
): Map<number, number> {
  const norms = queries.map((query) => Math.sqrt(dot(query, query, 0)));
  const scores = new Map<number, number>();
  for (const row of rows) {
    const each = queries.map((query, head) =>
      dot(query, means, row * query.length) + lambda * (norms[head] ?? 0) * (spread[row] ?? 0)
    );
    scores.set(row, Math.max(...each));
  }
  return scores;
}

/** The `count` best rows; ties go to the lower row. */
function best(scores: ReadonlyMap<number, number>, count: number): number[] {
  return [...scores].sort(([a, x], [b, y]) => y - x || a - b).slice(0, count).map(([row]) => row);
}

/** Pages that are not always read. */
function freePages(search: Search): number[] {
  const count = Math.max(0, search.numPages - SINK_PAGES - RECENT_PAGES);
  return Array.from({ length: count }, (_, index) => SINK_PAGES + index);
}

function scorePages(search: Search, name: string, pages: Iterable<number>, bf16Std = false): Map<number, number> {
  const { means, std, stdBf16 } = search.pages;
  return scoreRows(search.queries, means.get(name) ?? new Float32Array(), bf16Std ? stdBf16 : std, LAMBDA, pages);
}

function arm(label: string, bytes: Arm["bytes"], choose: Arm["choose"]): Arm {
  return { label, bytes, choose, agreed: [], rows: [], mass: 0 };
}

/** Bytes of one row of d numbers in 8 bits with a scale and a std, or in 16 bits with a std; std is f32. */
const bytes8 = (d: number): number => d + 8;
const bytes16 = (d: number): number => 2 * d + 4;

function plainArm(name: string, bytes: (d: number) => number, bf16Std = false): Arm {
  const label = `${name}, std ${bf16Std ? "bf16" : "f32"}`;
  return arm(label, bytes, (search) => best(scorePages(search, name, freePages(search), bf16Std), search.room));
}

/**
 * Selects the best `factor` k pages by a small encoding, then the best of these by bf16; the best `sure` k of the first round are
 * not scored again.
 */
function refine(search: Search, name: string, pages: readonly number[], factor: number, sure = 0): number[] {
  const first = best(scorePages(search, name, pages), Math.ceil(factor * search.room));
  if (factor === 1) return first;
  const kept = first.slice(0, Math.floor(sure * search.room));
  return [...kept, ...best(scorePages(search, "bf16", first.slice(kept.length)), search.room - kept.length)];
}

function refineArm(name: string, factor: number, sure = 0): Arm {
  return arm(
    `${name}, ${sure > 0 ? `ranks ${sure} k to ${factor} k` : `best ${factor} k`} again in bf16`,
    (d, share) => bytes8(d) + (factor - sure) * share * bytes16(d),
    (search) => refine(search, name, freePages(search), factor, sure),
  );
}

/**
 * Scores groups of `size` pages by the mean of their page means and the spread of their keys; only the pages of the best
 * `factor` k of them are scored.
 */
function twoLevelArm(size: number, factor: number, name: "bf16" | "fp8"): Arm {
  const row = name === "fp8" ? bytes8 : bytes16;
  const again = name === "fp8" ? 1.25 : 1;
  return arm(
    `two levels: ${factor} k of the ${size}-page groups, then ${name}${
      again > 1 ? `, best ${again} k again in bf16` : ""
    }`,
    (d, share) =>
      row(d) * (1 / size + Math.min(1, factor * share * size)) + (again > 1 ? again * share * bytes16(d) : 0),
    (search) => {
      const { means, spread } = superPages(search, size, name);
      const kept = new Set(best(scoreRows(search.queries, means, spread, LAMBDA, spread.keys()), factor * search.room));
      return refine(search, name, freePages(search).filter((page) => kept.has(Math.floor(page / size))), again);
    },
  );
}

/**
 * Means `[ceil(P / size), d]`, as decoded; spread: root mean square distance of their keys (the std of all of
 * them).
 */
function superPages({ pages, numPages }: Search, size: number, name: string): { means: Row; spread: Row } {
  const d = pages.centre.length;
  const source = pages.means.get("f32") ?? new Float32Array();
  const count = Math.ceil(numPages / size);
  const [means, spread] = [new Float32Array(count * d), new Float32Array(count)];
  for (let at = 0; at < count; at++) {
    const [first, end] = [at * size, Math.min((at + 1) * size, numPages)];
    const mean = means.subarray(at * d, (at + 1) * d);
    for (let page = first; page < end; page++) {
      for (let index = 0; index < d; index++) mean[index]! += (source[page * d + index] ?? 0) / (end - first);
    }
    let sum = 0;
    for (let page = first; page < end; page++) {
      for (let index = 0; index < d; index++) sum += ((source[page * d + index] ?? 0) - (mean[index] ?? 0)) ** 2;
      sum += (pages.std[page] ?? 0) ** 2;
    }
    spread[at] = Math.sqrt(sum / (end - first));
    mean.set(ENCODINGS[name]?.(mean, pages.centre) ?? mean);
  }
  return { means, spread };
}

export function makeArms(): Arm[] {
  return [
    plainArm("bf16", bytes16),
    plainArm("bf16", (d) => 2 * d + 2, true),
    plainArm("f32", (d) => 4 * d + 4),
    ...["fp8", "int8"].flatMap((name) => [plainArm(name, bytes8), plainArm(name, (d) => d + 6, true)]),
    ...["fp8 centred", "int8 centred", "int8 rotated", "int8 centred and rotated"].map((name) =>
      plainArm(name, bytes8)
    ),
    plainArm("int12", (d) => 1.5 * d + 8),
    ...[1.1, 1.25, 1.5, 2].flatMap((factor) => ["fp8", "int8"].map((name) => refineArm(name, factor))),
    refineArm("fp8", 1.25, 0.75),
    ...[[4, 1], [4, 2], [8, 1], [8, 1.5], [8, 2], [16, 1], [16, 2]].map(([size = 8, factor = 1]) =>
      twoLevelArm(size, factor, "bf16")
    ),
    ...[1, 2].map((factor) => twoLevelArm(8, factor, "fp8")),
  ];
}
