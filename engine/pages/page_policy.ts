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

/** Which pages every layer reads: {@link SparseOptions} resolved for a model and a device. */
export interface PagePolicy {
  /** Tokens per page. */
  readonly pageSize: number;
  /** Physical pages that are allocated together: 8 if groups of pages are scored first, else 1. */
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
}

export const PAGE_SIZES = [8, 16, 32, 64] as const;
export const SCORERS: readonly Scorer[] = ["unique", "diag", "quest", "mean"];
export const DEFAULT_SPARSE = {
  mode: "auto",
  budgetTokens: 512,
  pageSize: 8,
  scorer: "diag",
  sinkPages: 1,
  recentPages: 2,
  denseLayers: 0,
  levels: 1,
} as const satisfies SparseOptions;

/** Default weight of the spread, for models without `sparsity.json` (docs/quality.md). */
const DEFAULT_LAMBDA: Readonly<Record<Scorer, number>> = { unique: 0.5, diag: 2, quest: 0, mean: 0 };

function refuse(message: string): never {
  throw new PagesiftError("usage", message);
}

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) refuse(`${name} is ${value}, expected a whole number from 0`);
}

function checkBudget(budgetTokens: number, pageSize: number): void {
  if (Number.isSafeInteger(budgetTokens) && budgetTokens >= pageSize && budgetTokens % pageSize === 0) return;
  const below = Math.floor(budgetTokens / pageSize) * pageSize;
  const nearest = below >= pageSize ? `${below} or ${below + pageSize}` : `${pageSize}`;
  refuse(
    `Sparse budget is ${budgetTokens} tokens, expected a multiple of the page size ${pageSize}` +
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
  checkBudget(options.budgetTokens, options.pageSize);
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
  const options = { ...DEFAULT_SPARSE, ...sparse };
  const lambda = sparse.lambda ?? DEFAULT_LAMBDA[options.scorer] ?? 0;
  checkOptions(options, lambda);
  const { pageSize, scorer, denseLayers, mode } = options;
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
  });
}

/** The same policy for the same cache, without layers that select pages. */
export function densePolicy(policy: PagePolicy): PagePolicy {
  const layers = policy.layers.map((layer): LayerPolicy => layer.kind === "sparse" ? { kind: "dense" } : layer);
  return Object.freeze({ ...policy, layers });
}

/** Layers that select pages. */
export function countSparseLayers(policy: PagePolicy): number {
  return policy.layers.filter(({ kind }) => kind === "sparse").length;
}

/** Whether a selection leaves pages out for a sequence of this many tokens. */
export function exceedsBudget(policy: PagePolicy, lengthTokens: number): boolean {
  return Math.ceil(lengthTokens / policy.pageSize) > policy.budgetPages;
}
