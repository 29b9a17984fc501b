/** Everything that an inspection records. Every view is made from it, in the run or on replay. */
import type { FinishReason, Scorer } from "../engine/types.ts";
import type { PromptText } from "./prompt_text.ts";
import type { RowLog } from "./row_log.ts";

/** Scorers that can be compared; `oracle` takes the pages with the most attention mass. */
export type ComparedScorer = Scorer | "oracle";
export const COMPARED_SCORERS: readonly ComparedScorer[] = ["unique", "diag", "quest", "mean", "oracle"];

export type LayerKind = "sparse" | "dense" | "window";

/** What was inspected, and how. Numbers are counts unless the name has another unit. */
export interface Facts {
  /** Of the program. */
  version: string;
  model: string;
  device: string;
  command: string;
  /** ISO 8601. */
  date: string;
  promptTokens: number;
  /** Observed decode steps. */
  steps: number;
  pageSize: number;
  /** Pages of the context at the last step. */
  pages: number;
  layers: LayerKind[];
  /** KV heads, and query heads in all. */
  heads: number;
  queryHeads: number;
  budgetPages: number;
  scorer: Scorer;
  lambda: number;
  sinkPages: number;
  /** First page that was recent in any step; all later pages are recent too. */
  firstRecentPage: number;
  /** Steps that skipped at least one page, counted by the kernels. */
  selectedSteps: number;
  /** KV pages read by attention, and by dense attention in its place, over steps, layers and KV heads. */
  pagesRead: number;
  pagesDense: number;
  /** All tokens of the answer, the one from the prefill first; the last one never entered the context. */
  answerIds: number[];
  answerText: string;
  finish: FinishReason;
  prefillSeconds: number;
  decodeSeconds: number;
}

/** Means over all steps, by (layer, head, page): `[L, H, P]`, in the codes of `codes.ts`. */
export interface Totals {
  /** Shares of the exact softmax. */
  mass: Uint16Array;
  /** Scores in standard deviations. */
  score: Uint16Array;
}

/** Numbers of one row, in the order of {@link Recording.figures}. */
export const FIGURES = ["kept", "best", "found", "wanted"] as const;
/** Numbers of one row and scorer, in the order of {@link Comparison.figures}. */
export const COMPARED_FIGURES = ["kept", "found", "shared"] as const;

/** Scorers side by side on the same steps. */
export interface Comparison {
  scorers: readonly ComparedScorer[];
  /** `[N, L, H, scorers, 3]`: attention mass retained, best pages found, pages that the run also read; NaN in window layers. */
  figures: Float32Array;
}

/** The answer's probability with some pages masked. */
export interface Ablation {
  /** What was masked, for display. */
  label: string;
  pages: number[];
  /** Sum of the log-probabilities of the generated tokens, with and without the mask, in nats. */
  logProbability: number;
  baseline: number;
  /** Share of attention mass, averaged over steps, layers and heads. */
  mass: number;
}

/** What `--ablate` masks. */
export type Ablated = "page" | "file";

/** The label of a page that is masked alone. */
export function pageLabel(page: number): string {
  return `page ${page}`;
}

/** What was masked; undefined if nothing was. */
export function ablatedOf(ablations: readonly Ablation[] | undefined): Ablated | undefined {
  const isPage = ({ label, pages: [page] }: Ablation): boolean => page !== undefined && label === pageLabel(page);
  return ablations && (ablations.every(isPage) ? "page" : "file");
}

export interface Recording {
  facts: Facts;
  text: PromptText;
  totals: Totals;
  /** `[N, L, H]` */
  rows: RowLog;
  /**
   * `[N, L, H, 4]`: attention mass in the pages that were read, and in as many best pages; best pages that were read, and best pages,
   * both without pages that are always read. NaN in window layers.
   */
  figures: Float32Array;
  comparison?: Comparison | undefined;
  /** `[P]`: how often tiles of the prompt chose each page, over tiles, layers and KV heads; undefined if they read all pages. */
  promptReads?: number[] | undefined;
  ablations?: Ablation[] | undefined;
}

/** Place of a row in `[N, L, H]`. */
export function rowIndex({ layers, heads }: Facts, step: number, layer: number, head: number): number {
  return (step * layers.length + layer) * heads + head;
}

/** Why a page is always read; undefined if the scorer decides. */
export function forcedKind({ sinkPages, firstRecentPage }: Facts, page: number): "sink" | "recent" | undefined {
  return page < sinkPages ? "sink" : page >= firstRecentPage ? "recent" : undefined;
}
