import { PagesiftError } from "../errors.ts";
import type { Scorer, SparseOptions } from "../types.ts";

/**
 * What the attention of one layer reads at a decode step: all pages, selected pages, or the pages of a sliding window of `tokens`
 * tokens, which are never selected.
 */
export type LayerPolicy =
  | { kind: "dense" }
  | { kind: "sparse" }
  | { kind: "window"; tokens: number };

/** Which pages the tiles of a prompt read, where they do not read all. */
export interface PrefillPolicy {
  /** Pages before its own that a tile reads per KV head. */
  readonly budgetPages: number;
  /** Those of them just before the tile that are always read. */
  readonly recentPages: number;
  /** Position of the first tile that selects. */
  readonly fromTokens: number;
  /** Whether each layer selects, `[numLayers]`. */
  readonly layers: readonly boolean[];
}

/** Which pages every layer reads: {@link SparseOptions} resolved for a model and a device. */
export interface PagePolicy {
  /** Tokens per page. */
  readonly pageSize: number;
  /** Physical pages that are allocated together: 8 if pages are scored at two levels, else 1. */
  readonly groupPages: 1 | 8;
  /** Pages that a KV head reads in a sparse layer. */
  readonly budgetPages: number;
  /** How pages are scored. */
  readonly scorer: Scorer;
  /** Weight of the spread in the score. */
  readonly lambda: number;
  /** First pages that are always read. */
  readonly sinkPages: number;
  /** Last pages that are always read. */
  readonly recentPages: number;
  /** Whether a step selects only where that makes it faster (mode `auto`), instead of as soon as there are more pages than the budget. */
  readonly onlyIfFaster: boolean;
  /** `[numLayers]` */
  readonly layers: readonly LayerPolicy[];
  /** Undefined where prompts read all pages. */
  readonly prefill: PrefillPolicy | undefined;
}

/** Tokens of a prompt that select pages together. Tiles begin at multiples of this in the sequence. */
export const PREFILL_TILE_TOKENS = 128;
/** Tokens before a tile that it always reads, if its budget is at least twice as large. */
const PREFILL_RECENT_TOKENS = 256;
/** Budgets before the first tile that selects in mode `auto`: before that, selecting costs more than it saves. */
const PREFILL_AUTO_BUDGETS = 4;

export const PAGE_SIZES = [8, 16, 32, 64] as const;
export const SCORERS: readonly Scorer[] = ["unique", "diag", "quest", "mean"];
export const DEFAULT_SPARSE = {
  mode: "auto",
  budgetTokens: 1024,
  pageSize: 8,
  scorer: "diag",
  sinkPages: 1,
  recentPages: 2,
  denseLayers: 0,
  prefill: "off",
  prefillBudgetTokens: 4096,
} as const satisfies SparseOptions;

/** Default levels of scoring, for models without `sparsity.json`: groups miss pages, coarse copies do not (docs/notes/statistics.md). */
const DEFAULT_LEVELS: Readonly<Record<Scorer, number>> = { unique: 1, diag: 2, quest: 1, mean: 1 };

/** Default weight of the spread, for models without `sparsity.json` (docs/quality.md). */
const DEFAULT_LAMBDA: Readonly<Record<Scorer, number>> = { unique: 0.5, diag: 2, quest: 0, mean: 0 };

function refuse(message: string): never {
  throw new PagesiftError("usage", message);
}

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) refuse(`${name} is ${value}, expected a whole number from 0`);
}

function checkBudget(name: string, budgetTokens: number, pageSize: number): void {
  if (Number.isSafeInteger(budgetTokens) && budgetTokens >= pageSize && budgetTokens % pageSize === 0) return;
  const below = Math.floor(budgetTokens / pageSize) * pageSize;
  const nearest = below >= pageSize ? `${below} or ${below + pageSize}` : `${pageSize}`;
  refuse(
    `${name} is ${budgetTokens} tokens, expected a multiple of the page size ${pageSize}` +
      (Number.isFinite(budgetTokens) ? `; the nearest is ${nearest}` : ""),
  );
}

function checkOptions(options: Required<Omit<SparseOptions, "lambda">>, lambda: number): void {
  if (!["auto", "on", "off"].includes(options.mode)) {
    refuse(`Sparse mode "${options.mode}" is unknown; expected auto, on or off`);
  }
  if (!PAGE_SIZES.some((size) => size === options.pageSize)) {
    refuse(`Page size is ${options.pageSize} tokens, expected ${PAGE_SIZES.join(", ")}`);
  }
  checkBudget("Sparse budget", options.budgetTokens, options.pageSize);
  if (options.prefill !== "off") checkBudget("Prefill budget", options.prefillBudgetTokens, options.pageSize);
  if (!["auto", "on", "off"].includes(options.prefill)) {
    refuse(`Sparse prefill "${options.prefill}" is unknown; expected auto, on or off`);
  }
  if (!SCORERS.includes(options.scorer)) {
    refuse(`Scorer "${options.scorer}" is unknown; expected ${SCORERS.join(", ")}`);
  }
  if (options.levels !== 1 && options.levels !== 2) refuse(`Score levels are ${options.levels}, expected 1 or 2`);
  if (!Number.isFinite(lambda) || lambda < 0) refuse(`Lambda is ${lambda}, expected a number from 0`);
  checkCount("Number of sink pages", options.sinkPages);
  checkCount("Number of recent pages", options.recentPages);
  checkCount("Number of dense layers", options.denseLayers);
}

/**
 * The policy for a model with these sliding windows (`[numLayers]`, tokens, 0 for none), on a device that scores groups of pages or not.
 *
 * @throws {PagesiftError} of kind "usage" that names the value and the nearest legal ones
 */
export function resolvePolicy(
  sparse: SparseOptions,
  slidingWindows: readonly number[],
  scoresGroups = false,
): PagePolicy {
  const scorer = sparse.scorer ?? DEFAULT_SPARSE.scorer;
  const options = { ...DEFAULT_SPARSE, levels: DEFAULT_LEVELS[scorer] ?? 1, ...sparse };
  const lambda = sparse.lambda ?? DEFAULT_LAMBDA[options.scorer] ?? 0;
  checkOptions(options, lambda);
  const { pageSize, denseLayers, mode } = options;
  const budgetPages = options.budgetTokens / pageSize;
  return Object.freeze({
    pageSize,
    groupPages: scoresGroups && options.levels === 2 ? 8 : 1,
    budgetPages,
    scorer,
    lambda,
    sinkPages: Math.min(options.sinkPages, budgetPages),
    recentPages: Math.min(options.recentPages, budgetPages),
    onlyIfFaster: mode === "auto",
    layers: slidingWindows.map((tokens, layer): LayerPolicy => {
      if (tokens > 0) return { kind: "window", tokens };
      return { kind: mode === "off" || layer < denseLayers ? "dense" : "sparse" };
    }),
    prefill: resolvePrefill(options, sparse.prefillBudgetTokens !== undefined, slidingWindows),
  });
}

/** The same policy for the same cache, without layers that select pages. */
export function densePolicy(policy: PagePolicy): PagePolicy {
  const layers = policy.layers.map((layer): LayerPolicy => layer.kind === "sparse" ? { kind: "dense" } : layer);
  return Object.freeze({ ...policy, layers });
}

/** `isChosen`: whether somebody, such as the model, says that the budget is enough. */
function resolvePrefill(
  { prefill, prefillBudgetTokens, pageSize, denseLayers }: Required<Omit<SparseOptions, "lambda">>,
  isChosen: boolean,
  slidingWindows: readonly number[],
): PrefillPolicy | undefined {
  if (prefill === "off" || prefill === "auto" && !isChosen) return undefined;
  const budgetPages = prefillBudgetTokens / pageSize;
  return Object.freeze({
    budgetPages,
    recentPages: Math.min(PREFILL_RECENT_TOKENS / pageSize, Math.floor(budgetPages / 2)),
    fromTokens: prefill === "auto" ? roundUp(PREFILL_AUTO_BUDGETS * prefillBudgetTokens, PREFILL_TILE_TOKENS) : 0,
    layers: slidingWindows.map((tokens, layer) => tokens === 0 && layer >= denseLayers),
  });
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** Whether a tile that begins at `position` selects: it has more pages before it than the budget. */
export function tileSelects({ prefill, pageSize }: PagePolicy, position: number): boolean {
  return prefill !== undefined && position >= prefill.fromTokens &&
    Math.floor(position / pageSize) > prefill.budgetPages;
}

/** Layers that select pages. */
export function countSparseLayers(policy: PagePolicy): number {
  return policy.layers.filter(({ kind }) => kind === "sparse").length;
}

/** Whether a selection leaves pages out for a sequence of this many tokens. */
export function exceedsBudget(policy: PagePolicy, lengthTokens: number): boolean {
  return Math.ceil(lengthTokens / policy.pageSize) > policy.budgetPages;
}
