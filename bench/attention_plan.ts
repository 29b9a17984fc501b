/** Which settings `bench attention` measures, checked as a whole before anything is allocated. */
import { PAGE_SIZES, SCORERS } from "../engine/pages/page_policy.ts";
import { kvRowBytes } from "../engine/pages/kv_type.ts";
import type { Scorer } from "../engine/types.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { checkBudgets, checkExceeds, parseCounts, parseHeads, parseWords, usageError } from "./lists.ts";

export const DTYPES = ["bf16", "f16", "f32"] as const;
/** The largest batch of one call. */
const MAX_BATCH = 4096;

/** The lists from the command line. */
export interface AttentionLists {
  context: string;
  batch: string;
  heads: string;
  headDim: string;
  pageSize: string;
  budget: string;
  scorer: string;
  dtype: string;
  levels: 1 | 2;
  lambda: number | undefined;
  sinkPages: number;
  recentPages: number;
  repetitions: number;
}

/** One filled cache, and what is measured on it: all scorers and budgets alternate over the same keys. */
export interface AttentionCase {
  contextTokens: number;
  batch: number;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
  pageSize: number;
  dtype: CacheShape["dtype"];
  budgets: readonly number[];
  scorers: readonly Scorer[];
}

/** All cases, and the settings that they share. */
export interface AttentionPlan {
  cases: readonly AttentionCase[];
  levels: 1 | 2;
  lambda: number | undefined;
  sinkPages: number;
  recentPages: number;
  repetitions: number;
}

/** @throws {PagesiftError} of kind "usage" that names the flag, its value and the nearest legal one */
export function planAttention(lists: AttentionLists): AttentionPlan {
  const contexts = parseCounts("--context", lists.context, 1);
  const batches = parseCounts("--batch", lists.batch, 1);
  const heads = parseHeads("--heads", lists.heads);
  const headDims = parseCounts("--head-dim", lists.headDim, 16);
  const pageSizes = parseCounts("--page-size", lists.pageSize, 1);
  const budgets = parseCounts("--budget", lists.budget, 1);
  const scorers = parseWords("--scorer", lists.scorer, SCORERS);
  const dtypes = parseWords("--dtype", lists.dtype, DTYPES);
  checkBudgets(pageSizes, budgets, PAGE_SIZES);
  for (const batch of batches) checkAtMost("--batch", batch, MAX_BATCH);
  for (const headDim of headDims) checkHeadDim(headDim);
  for (const context of contexts) checkExceeds("--context", context, budgets, pageSizes);
  const cases = contexts.flatMap((contextTokens) =>
    batches.flatMap((batch) =>
      heads.flatMap((pair) =>
        headDims.flatMap((headDim) =>
          dtypes.flatMap((dtype) =>
            pageSizes.map((pageSize) => ({ contextTokens, batch, ...pair, headDim, dtype, pageSize, budgets, scorers }))
          )
        )
      )
    )
  );
  const { levels, lambda, sinkPages, recentPages, repetitions } = lists;
  return { cases, levels, lambda, sinkPages, recentPages, repetitions };
}

function checkAtMost(flag: string, value: number, most: number): void {
  if (value > most) throw usageError(`${flag} contains ${value}, expected at most ${most}`);
}

function checkHeadDim(headDim: number): void {
  if (headDim % 16 === 0 && headDim <= 512) return;
  const nearest = Math.min(512, Math.max(16, Math.round(headDim / 16) * 16));
  throw usageError(`--head-dim contains ${headDim}, expected multiples of 16 up to 512; the nearest is ${nearest}`);
}

/** Rows: sequences times KV heads. */
export function rowsOf({ batch, kvHeads }: AttentionCase): number {
  return batch * kvHeads;
}

export function pagesOf({ contextTokens, pageSize }: AttentionCase): number {
  return Math.ceil(contextTokens / pageSize);
}

/** Bytes of keys and values per page and row. */
export function pageBytes({ pageSize, headDim, dtype }: AttentionCase): number {
  return 2 * pageSize * kvRowBytes({ dtype }, headDim);
}
