/** All that an inspection keeps, from which every view is made, now or on replay. */
import type { FinishReason, Scorer } from "../engine/types.ts";
import type { PromptText } from "./prompt_text.ts";
import type { RowLog } from "./row_log.ts";

/** Scorers that can be compared; `oracle` takes the pages of highest exact mass. */
export type ComparedScorer = Scorer | "oracle";
export const COMPARED_SCORERS: readonly ComparedScorer[] = ["unique", "diag", "quest", "mean", "oracle"];

export type LayerKind = "sparse" | "dense" | "window";

/** What was inspected, and how. Counts unless the name has another unit. */
export interface Facts {
  /** Of the program. */
  version: string;
  model: string;
  device: string;
  command: string;
  /** ISO 8601. */
  date: string;
  promptTokens: number;
  /** Decode steps that were watched. */
  steps: number;
  pageSize: number;
  /** Pages that the context had at the last step. */
  pages: number;
  layers: LayerKind[];
  /** KV heads, and query heads in all. */
  heads: number;
  queryHeads: number;
  budgetPages: number;
  scorer: Scorer;
  lambda: number;
  sinkPages: number;
  /** First page that was among the recent ones in some step; later ones are recent too. */
  firstRecentPage: number;
  /** Steps in which at least one page was left out, as the kernels had it. */
  selectedSteps: number;
  /** KV pages that attention read, and that dense attention would have read, over steps, layers and KV heads. */
  pagesRead: number;
  pagesDense: number;
  /** All tokens of the answer, the prompt's own first; the last one never went in. */
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

/** Numbers of one row, in the order that {@link Recording.figures} has them. */
export const FIGURES = ["kept", "best", "found", "wanted"] as const;
/** Numbers of one row and scorer, in the order that {@link Comparison.figures} has them. */
export const COMPARED_FIGURES = ["kept", "found", "shared"] as const;

/** Scorers side by side on the same steps. */
export interface Comparison {
  scorers: readonly ComparedScorer[];
  /** `[N, L, H, scorers, 3]`: exact mass kept, wanted pages found, pages that the run read as well; NaN in window layers. */
  figures: Float32Array;
}

/** The answer's probability with some pages masked. */
export interface Ablation {
  /** What was masked, as people read it. */
  label: string;
  pages: number[];
  /** Sum of the log-probabilities of the tokens that the steps gave, with the mask and without, in nats. */
  logProbability: number;
  baseline: number;
  /** Share of exact mass, averaged over steps, layers and heads. */
  mass: number;
}

/** What `--ablate` masks. */
export type Ablated = "page" | "file";

/** How a page that is masked alone is called. */
export function pageLabel(page: number): string {
  return `page ${page}`;
}

/** What was masked; undefined where nothing was. */
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
   * `[N, L, H, 4]`: exact mass in the pages that were read, and in the best ones of the same number; wanted pages that were read, and
   * wanted pages, those that are always read left out of both. NaN in window layers.
   */
  figures: Float32Array;
  comparison?: Comparison | undefined;
  ablations?: Ablation[] | undefined;
}

/** Place of a row in `[N, L, H]`. */
export function rowIndex({ layers, heads }: Facts, step: number, layer: number, head: number): number {
  return (step * layers.length + layer) * heads + head;
}

/** Why a page is read whatever its score. */
export function forcedKind({ sinkPages, firstRecentPage }: Facts, page: number): "sink" | "recent" | undefined {
  return page < sinkPages ? "sink" : page >= firstRecentPage ? "recent" : undefined;
}
