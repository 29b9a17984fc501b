/** Pages by exact mass, and how near a selection comes to them. */

/** How many pages to take, and which always. */
export interface SelectionRule {
  budgetPages: number;
  sinkPages: number;
  recentPages: number;
}

/** A selection against the oracle's. */
export interface Agreement {
  /** Of the oracle's pages that were not forced. */
  recall: number;
  /** Softmax mass in the chosen pages. */
  mass: number;
  oracleMass: number;
}

/** Pages that are always in, as the native selection has them: the recent ones first where both do not fit. */
export function forcedPages(numPages: number, { budgetPages, sinkPages, recentPages }: SelectionRule): Set<number> {
  const forced = new Set<number>();
  for (let page = numPages - Math.min(recentPages, budgetPages); page < numPages; page++) forced.add(page);
  const room = budgetPages - forced.size;
  for (let page = 0; page < Math.min(sinkPages, room); page++) forced.add(page);
  return forced;
}

/** The pages of highest mass beside the forced ones, ascending; equal masses go to the lower page. */
export function oraclePages(mass: Float64Array, rule: SelectionRule): number[] {
  if (mass.length <= rule.budgetPages) return Array.from(mass.keys());
  const forced = forcedPages(mass.length, rule);
  const free = Array.from(mass.keys()).filter((page) => !forced.has(page))
    .sort((a, b) => (mass[b] ?? 0) - (mass[a] ?? 0) || a - b);
  return [...forced, ...free.slice(0, rule.budgetPages - forced.size)].sort((a, b) => a - b);
}

/** One KV head's chosen pages against the oracle's. */
export function agreementOf(mass: Float64Array, chosen: readonly number[], rule: SelectionRule): Agreement {
  const forced = forcedPages(mass.length, rule);
  const oracle = oraclePages(mass, rule);
  const wanted = oracle.filter((page) => !forced.has(page));
  const has = new Set(chosen);
  const massOf = (pages: readonly number[]): number => pages.reduce((sum, page) => sum + (mass[page] ?? 0), 0);
  return {
    recall: wanted.length === 0 ? 1 : wanted.filter((page) => has.has(page)).length / wanted.length,
    mass: massOf(chosen),
    oracleMass: massOf(oracle),
  };
}
