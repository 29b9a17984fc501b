/** Arguments of calls on a KV cache: options with the native arguments that they stand for, and tensors that belong together. */
import { ENUMS } from "./symbols.ts";
import type { Tensor } from "./tensor.ts";

const DEFAULT_LAMBDA = { unique: 0.5, diag: 4, quest: 0, mean: 0 } as const;

export interface ScoreOptions {
  /** Default `unique`. */
  scorer?: keyof typeof ENUMS.ps_scorer;
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
  return [ENUMS.ps_scorer[scorer], lambda];
}

/** The `sink_pages` and `recent_pages` of a native call. */
export function forcedArguments({ sinkPages = 1, recentPages = 2 }: SelectOptions): [number, number] {
  return [sinkPages, recentPages];
}

/** The page tables of B sequences. */
export interface Sequences {
  /** i32 `[B, M]`: physical pages, in logical order. */
  pageTable: Tensor;
  /** i32 `[B]`: tokens in the cache. */
  lengths: Tensor;
}

/** The pages chosen for each sequence and KV head. */
export interface Selection {
  /** i32 `[B, Hk, k]`: logical pages, ascending. */
  selected: Tensor;
  /** i32 `[B, Hk]`: how many of the k are used. */
  counts: Tensor;
}

/** How the heads of queries and keys are normalized and rotated before keys are stored. */
export interface HeadRotation {
  /** Weights `[d]`. */
  norm?: { query: Tensor; key: Tensor; eps: number } | undefined;
  /** f32 `[T, r]`, as `ropeTable` writes them. */
  queryTable: Tensor;
  keyTable: Tensor;
}

type Struct = Tensor["struct"];

/** The `eps`, `q_norm`, `k_norm`, `q_table` and `k_table` of a native call. */
export function rotationArguments(
  { norm, queryTable, keyTable }: HeadRotation,
): [number, Struct | null, Struct | null, Struct, Struct] {
  return [norm?.eps ?? 0, norm?.query.struct ?? null, norm?.key.struct ?? null, queryTable.struct, keyTable.struct];
}
