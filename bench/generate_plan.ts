/** Which tests `bench generate` runs, checked as a whole before any weight is loaded. */
import type { ModelConfig } from "../engine/folder/config.ts";
import { MAX_BATCH } from "../engine/request.ts";
import { PagesiftError } from "../engine/errors.ts";
import { type ExtraStatistics, type PoolNeed, statisticsFor } from "../engine/pages/kv_pool.ts";
import {
  PAGE_SIZES,
  type PagePolicy,
  PREFILL_TILE_TOKENS,
  resolvePolicy,
  SCORERS,
} from "../engine/pages/page_policy.ts";
import type { Scorer, SparseOptions } from "../engine/types.ts";
import { checkBudgets, parseCounts, parseWords, usageError } from "./lists.ts";

/** Untimed steps at the start: one runs directly, one is recorded, one is replayed. */
export const WARMUP_STEPS = 3;

/** The lists from the command line. */
export interface GenerateLists {
  prompt: string;
  decode: string;
  depth: string;
  batch: string;
  pageSize: string;
  budget: string;
  prefillBudget: string;
  scorer: string;
  levels: 1 | 2;
  lambda: number | undefined;
  sinkPages: number;
  recentPages: number;
  denseLayers: number;
  repetitions: number;
  /** Prefill the cache at depth instead of filling it with random keys. */
  prefillDepth: boolean;
}

/** One pool: its tests alternate over the same tokens. */
export interface GenerateCase {
  depthTokens: number;
  batch: number;
  pageSize: number;
  /** Prompts run in one sequence at a time, so only the first batch of the list has them. */
  prompts: readonly number[];
}

export interface GeneratePlan
  extends Pick<GenerateLists, "levels" | "lambda" | "sinkPages" | "recentPages" | "denseLayers"> {
  cases: readonly GenerateCase[];
  decodes: readonly number[];
  budgets: readonly number[];
  /** Tokens that tiles of prompts read, each measured beside dense prompts. */
  prefillBudgets: readonly number[];
  scorers: readonly Scorer[];
  repetitions: number;
  prefillDepth: boolean;
  /** Tokens of the longest sequence. */
  longest: number;
  largestBatch: number;
  /** What is left out, and why. */
  notes: readonly string[];
}

/** @throws {PagesiftError} of kind "usage" that names the flag, its value and the nearest legal one */
export function planGenerate(lists: GenerateLists): GeneratePlan {
  const prompts = parseCounts("-p", lists.prompt, 0).filter((count) => count > 0);
  const decodes = parseCounts("-n", lists.decode, 0).filter((count) => count > 0);
  if (prompts.length + decodes.length === 0) throw usageError("-p 0 and -n 0 leave nothing to measure");
  const depths = parseCounts("-d", lists.depth, 0);
  const batches = parseCounts("--batch", lists.batch, 1);
  const pageSizes = parseCounts("--page-size", lists.pageSize, 1);
  const budgets = parseCounts("--budget", lists.budget, 1);
  const prefillBudgets = parseCounts("--prefill-budget", lists.prefillBudget, 0).filter((count) => count > 0);
  const scorers = parseWords("--scorer", lists.scorer, SCORERS);
  checkBudgets(pageSizes, budgets, PAGE_SIZES);
  checkBudgets(pageSizes, prefillBudgets, PAGE_SIZES);
  const tooMany = batches.find((batch) => batch > MAX_BATCH);
  if (tooMany !== undefined) throw usageError(`--batch contains ${tooMany}, expected at most ${MAX_BATCH}`);
  const cases = depths.flatMap((depthTokens) =>
    pageSizes.flatMap((pageSize) =>
      batches.map((batch, index) => ({ depthTokens, batch, pageSize, prompts: index === 0 ? prompts : [] }))
    )
  ).filter((one) => one.prompts.length + decodes.length > 0);
  const { levels, lambda, sinkPages, recentPages, denseLayers, repetitions, prefillDepth } = lists;
  return {
    ...{ cases, decodes, budgets, prefillBudgets, scorers, repetitions, prefillDepth },
    ...{ levels, lambda, sinkPages, recentPages, denseLayers },
    longest: Math.max(...depths) + tailTokens(prompts, decodes),
    largestBatch: Math.max(...batches),
    notes: notesOf({ depths, budgets, decodes, prefillDepth }),
  };
}

/** Tokens after the depth that a sequence needs. */
export function tailTokens(prompts: readonly number[], decodes: readonly number[]): number {
  return Math.max(0, ...prompts, ...decodes.map((count) => count + WARMUP_STEPS));
}

function notesOf(
  { depths, budgets, decodes, prefillDepth }: {
    depths: readonly number[];
    budgets: readonly number[];
    decodes: readonly number[];
    prefillDepth: boolean;
  },
): string[] {
  const within = decodes.length === 0 ? [] : budgets.flatMap((budget) => {
    const low = depths.filter((depth) => !selectsAt(depth, budget));
    return low.length === 0 ? [] : [`Budget ${budget} covers depth ${low.join(", ")}: no sparse row there.`];
  });
  const filled = depths.some((depth) => depth > 0)
    ? [
      prefillDepth
        ? "The cache at depth was filled by a prefill of random tokens."
        : "The cache at depth holds random keys whose means drift from page to page; --prefill-depth prefills it instead.",
    ]
    : [];
  return [...filled, ...within];
}

/** Whether every timed step of a sequence at this depth has more tokens than the budget. */
export function selectsAt(depthTokens: number, budgetTokens: number): boolean {
  return depthTokens > budgetTokens;
}

/** One way to read a prompt, or to decode. */
export interface ReadingArm {
  name: "dense" | "sparse";
  policy: PagePolicy;
  budgetTokens?: number;
  scorer?: Scorer;
}

/** Dense first, then every scorer and budget that selects at this depth. */
export function decodeArms(
  plan: GeneratePlan,
  one: GenerateCase,
  config: ModelConfig,
  scoresGroups: boolean,
): [dense: ReadingArm, ...sparse: ReadingArm[]] {
  const policy = (mode: "on" | "off", scorer: Scorer, budgetTokens: number): PagePolicy =>
    policyOf({ mode, scorer, budgetTokens }, plan, one, config, scoresGroups);
  const sparse = plan.scorers.flatMap((scorer) =>
    plan.budgets.filter((budget) => selectsAt(one.depthTokens, budget)).map((budgetTokens): ReadingArm => ({
      ...{ name: "sparse", policy: policy("on", scorer, budgetTokens), budgetTokens, scorer },
    }))
  );
  const [scorer = "unique"] = plan.scorers;
  return [{ name: "dense", policy: policy("off", scorer, plan.budgets[0] ?? one.pageSize) }, ...sparse];
}

/** Dense first, then every scorer and prefill budget that leaves out pages of a prompt of this many tokens after the depth. */
export function promptArms(
  plan: GeneratePlan,
  one: GenerateCase,
  prompt: number,
  config: ModelConfig,
  scoresGroups: boolean,
): ReadingArm[] {
  const sparse = plan.scorers.flatMap((scorer) =>
    plan.prefillBudgets.filter((budget) => selectsAt(one.depthTokens + prompt, budget + PREFILL_TILE_TOKENS)).map(
      (budgetTokens): ReadingArm => {
        const options = { mode: "off", scorer, prefill: "on", prefillBudgetTokens: budgetTokens } as const;
        return { name: "sparse", policy: policyOf(options, plan, one, config, scoresGroups), budgetTokens, scorer };
      },
    )
  );
  return [{ name: "dense", policy: policyOf({ mode: "off" }, plan, one, config, scoresGroups) }, ...sparse];
}

function policyOf(
  options: SparseOptions,
  plan: GeneratePlan,
  one: GenerateCase,
  config: ModelConfig,
  scoresGroups: boolean,
): PagePolicy {
  const { levels, denseLayers, sinkPages, recentPages, lambda } = plan;
  const common = { levels, denseLayers, sinkPages, recentPages, pageSize: one.pageSize };
  return resolvePolicy(
    { ...common, ...options, ...lambda !== undefined && { lambda } },
    config.slidingWindows,
    scoresGroups,
  );
}

/** The cache of a case, with the statistics of all scorers. */
export function caseNeed(plan: GeneratePlan, one: GenerateCase): { need: PoolNeed; extra: ExtraStatistics } {
  const tokens = one.depthTokens + tailTokens(one.prompts, plan.decodes);
  return {
    need: { totalTokens: one.batch * tokens, longestTokens: tokens, maxSequences: one.batch },
    extra: statisticsFor(plan.scorers),
  };
}

/** @throws {PagesiftError} of kind "context" if a test exceeds the context of the model */
export function checkContext({ longest }: GeneratePlan, { maxContext }: ModelConfig): void {
  if (longest <= maxContext) return;
  throw new PagesiftError(
    "context",
    `The longest test reaches ${longest} tokens, limit ${maxContext} of the model, over by ${longest - maxContext}; ` +
      "lower -d, -p or -n",
  );
}
