import type { Entry, Row } from "./row_log.ts";

/** One step in one layer and KV head, by page. */
export interface RowData {
  /** Exact softmax shares, averaged over the query heads of the group. */
  mass: Float32Array;
  /** In standard deviations from their mean; undefined if pages are not scored. */
  score: Float32Array | undefined;
  /** Pages that were read, ascending; undefined for all. */
  selected: Int32Array | undefined;
  /** Pages with the most attention mass, as many as fit the budget, ascending. */
  wanted: Int32Array;
}

/** See `FIGURES`. */
export interface RowFigures {
  kept: number;
  best: number;
  found: number;
  wanted: number;
}

/** Averages each group of query heads: `[Hq, M]` to `[Hk, M]`, the first `pages` of M. */
export function averageGroups(
  mass: Float32Array,
  heads: number,
  group: number,
  columns: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(heads * columns);
  for (let query = 0; query < heads * group; query++) {
    const [from, to] = [query * columns, Math.floor(query / group) * columns];
    for (let page = 0; page < columns; page++) out[to + page]! += mass[from + page]! / group;
  }
  return out;
}

/** Scores as standard deviations from their mean, because scores of different heads have no common scale; 0 if all are equal. */
export function standardize(scores: Float32Array): Float32Array {
  let [sum, squares] = [0, 0];
  for (const score of scores) sum += score;
  const mean = sum / scores.length;
  for (const score of scores) squares += (score - mean) ** 2;
  const deviation = Math.sqrt(squares / scores.length);
  return scores.map((score) => deviation > 0 && Number.isFinite(deviation) ? (score - mean) / deviation : 0);
}

/** Sum of the masses of pages. */
export function sumOver(mass: Float32Array, pages: Int32Array): number {
  let sum = 0;
  for (const page of pages) sum += mass[page] ?? 0;
  return sum;
}

/** How many of the best pages are among others. Both ascend; pages that are always read do not count. */
export function countShared(
  wanted: Int32Array,
  others: Int32Array | undefined,
  isForced: (page: number) => boolean,
): number {
  let [count, at] = [0, 0];
  for (const page of wanted) {
    if (isForced(page)) continue;
    if (others) { while (at < others.length && others[at]! < page) at++; }
    if (!others || others[at] === page) count++;
  }
  return count;
}

export function rowFigures({ mass, selected, wanted }: RowData, isForced: (page: number) => boolean): RowFigures {
  return {
    kept: selected ? sumOver(mass, selected) : 1,
    best: selected ? sumOver(mass, wanted) : 1,
    found: countShared(wanted, selected, isForced),
    wanted: countShared(wanted, undefined, isForced),
  };
}

/** The row as it is recorded. */
export function toRow({ mass, score, selected, wanted }: RowData): Row {
  const entries: Entry[] = [];
  const add = (page: number, isSelected: boolean, isWanted: boolean): void => {
    entries.push({ page, selected: isSelected, wanted: isWanted, mass: mass[page] ?? 0, score: score?.[page] ?? 0 });
  };
  if (!selected) {
    for (const page of wanted) if (mass[page]! > 0) add(page, true, true);
    return { allRead: true, entries };
  }
  let at = 0;
  for (const page of wanted) {
    while (at < selected.length && selected[at]! < page) add(selected[at++]!, true, false);
    const both = selected[at] === page;
    if (both) at++;
    add(page, both, true);
  }
  while (at < selected.length) add(selected[at++]!, true, false);
  return { allRead: false, entries };
}
