/** How pages are scored and which are forced in, as options and as the arguments that the native calls take. */

/** Order of `ps_scorer`. */
const SCORERS = ["unique", "diag", "quest", "mean"] as const;
const DEFAULT_LAMBDA = { unique: 0.5, diag: 4, quest: 0, mean: 0 } as const;

export interface ScoreOptions {
  /** Default `unique`. */
  scorer?: (typeof SCORERS)[number];
  /** Weight of the spread. Default 0.5 for `unique`, 4 for `diag`. */
  lambda?: number;
}

export interface SelectOptions {
  /** Default 1. */
  sinkPages?: number;
  /** Default 2. */
  recentPages?: number;
}

/** The `scorer` and `lambda` of a native call. */
export function scorerArguments(
  { scorer = "unique", lambda = DEFAULT_LAMBDA[scorer] }: ScoreOptions,
): [number, number] {
  return [SCORERS.indexOf(scorer), lambda];
}

/** The `sink_pages` and `recent_pages` of a native call. */
export function forcedArguments({ sinkPages = 1, recentPages = 2 }: SelectOptions): [number, number] {
  return [sinkPages, recentPages];
}
