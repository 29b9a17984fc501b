/** Pages by exact softmax mass, and how close a selection comes to them. */

/** How many pages to select, and which are always selected. */
export interface SelectionRule {
  budgetPages: number;
  sinkPages: number;
  recentPages: number;
}

/** A selection compared with the oracle's. */
export interface Agreement {
  /** Share of the oracle's pages, without those that are always read. */
  recall: number;
  /** Softmax mass in the selected pages. */
  mass: number;
  oracleMass: number;
}

/** Pages that are always read, as in the native selection: the recent ones first if both do not fit. */
export function forcedPages(numPages: number, { budgetPages, sinkPages, recentPages }: SelectionRule): Set<number> {
  const forced = new Set<number>();
  for (let page = numPages - Math.min(recentPages, budgetPages); page < numPages; page++) forced.add(page);
  const room = budgetPages - forced.size;
  for (let page = 0; page < Math.min(sinkPages, room); page++) forced.add(page);
  return forced;
}

/** The pages with the highest mass plus those that are always read, ascending; ties go to the lower page. */
export function oraclePages(mass: Float64Array, rule: SelectionRule): number[] {
  if (mass.length <= rule.budgetPages) return Array.from(mass.keys());
  const forced = forcedPages(mass.length, rule);
  const free = Array.from(mass.keys()).filter((page) => !forced.has(page))
    .sort((a, b) => (mass[b] ?? 0) - (mass[a] ?? 0) || a - b);
  return [...forced, ...free.slice(0, rule.budgetPages - forced.size)].sort((a, b) => a - b);
}

/** One KV head's selected pages compared with the oracle's. */
export function agreementOf(mass: Float64Array, chosen: readonly number[], rule: SelectionRule): Agreement {
  const forced = forcedPages(mass.length, rule);
  const oracle = oraclePages(mass, rule);
  const expected = oracle.filter((page) => !forced.has(page));
  const has = new Set(chosen);
  const massOf = (pages: readonly number[]): number => pages.reduce((sum, page) => sum + (mass[page] ?? 0), 0);
  return {
    recall: expected.length === 0 ? 1 : expected.filter((page) => has.has(page)).length / expected.length,
    mass: massOf(chosen),
    oracleMass: massOf(oracle),
  };
}
