import { ENUMS } from "./symbols.ts";
import type { Tensor } from "./tensor.ts";

const DEFAULT_LAMBDA = { unique: 0.5, diag: 2, quest: 0, mean: 0 } as const;

/** How pages are scored. */
export interface ScoreOptions {
  /** `diag` and `quest` require {@link PageStatistics}. Default `unique`. */
  scorer?: "unique" | "diag" | "quest" | "mean";
  /** Weight of the spread of keys. Default 0.5 for `unique`, 2 for `diag`; the others ignore it. */
  lambda?: number;
}

/** Which pages are selected whatever their scores. */
export interface SelectOptions {
  /** First pages that are always selected. Default 1. */
  sinkPages?: number;
  /** Last pages that are always selected. Default 2. */
  recentPages?: number;
}

/** The `scorer` and `lambda` of a native call. */
export function scorerArguments(
  { scorer = "unique", lambda = DEFAULT_LAMBDA[scorer] }: ScoreOptions,
): [number, number] {
  return [ENUMS.ps_scorer[scorer], lambda];
}

/** The `sink_pages` and `recent_pages` of a native call. */
export function forcedArguments({ sinkPages = 1, recentPages = 2 }: SelectOptions): [number, number] {
  return [sinkPages, recentPages];
}

/** The page tables of B sequences. */
export interface Sequences {
  /** i32 `[B, M]`: physical pages in logical order. M is at most `maxPagesPerSequence`. */
  pageTable: Tensor;
  /** i32 `[B]`: tokens of each sequence in the cache. */
  lengths: Tensor;
}

/** The pages that are selected for each sequence and KV head. */
export interface Selection {
  /** i32 `[B, Hk, k]`: logical pages in ascending order. */
  selected: Tensor;
  /** i32 `[B, Hk]`: how many of the k entries are valid. */
  counts: Tensor;
}

/** What sparse attention selects pages with. */
export interface SelectionWork {
  /** f32 `[B, Hk, M]`, scratch. */
  scores: Tensor;
  /** Written. */
  selection: Selection;
}

/** The heads of T tokens and where their keys and values go. */
export interface AppendedHeads {
  /** f32 `[T, Hq, d]`. */
  q: Tensor;
  /** f32 `[T, Hk, d]`. */
  k: Tensor;
  /** f32 `[T, Hk, d]`. */
  v: Tensor;
  /** i32 `[T]`: physical page * S + position in the page. */
  slots: Tensor;
}

/** How the heads of queries and keys are normalized and rotated before keys are stored. */
export interface HeadRotation {
  /** RMS norm of each head, with weights `[d]`. Default: none. */
  norm?: { query: Tensor; key: Tensor; eps: number } | undefined;
  /** f32 `[T, r]`: r / 2 cosines, then r / 2 sines for the first r dimensions of a query head. */
  queryTable: Tensor;
  /** f32 `[T, r]`, the same for keys. */
  keyTable: Tensor;
}

type Struct = Tensor["struct"];

/** The `eps`, `q_norm`, `k_norm`, `q_table` and `k_table` of a native call. */
export function rotationArguments(
  { norm, queryTable, keyTable }: HeadRotation,
): [number, Struct | null, Struct | null, Struct, Struct] {
  return [norm?.eps ?? 0, norm?.query.struct ?? null, norm?.key.struct ?? null, queryTable.struct, keyTable.struct];
}

/** The `q`, `k`, `v` and `slots` of a native call. */
export function headArguments({ q, k, v, slots }: AppendedHeads): [Struct, Struct, Struct, Struct] {
  return [q.struct, k.struct, v.struct, slots.struct];
}

/** The `page_table`, `lengths`, `scores`, `selected` and `counts` of a native call. */
export function choiceArguments(
  { pageTable, lengths }: Sequences,
  { scores, selection }: SelectionWork,
): [Struct, Struct, Struct, Struct, Struct] {
  return [pageTable.struct, lengths.struct, scores.struct, selection.selected.struct, selection.counts.struct];
}
