/** Which tasks and arms `bench quality` measures, checked as a whole before the model is loaded. */
import { PagesiftError } from "../engine/errors.ts";
import { PAGE_SIZES, SCORERS } from "../engine/pages/page_policy.ts";
import type { Scorer, SparseOptions } from "../engine/types.ts";
import { checkBudgets, checkExceeds, parseCounts, parseWords } from "./lists.ts";

export const TASKS = ["needle", "pairs", "prose"] as const;
export type Task = (typeof TASKS)[number];

/** The lists from the command line. */
export interface QualityLists {
  task: string;
  length: string;
  budget: string;
  scorer: string;
  pageSize: number;
  documents: number;
  facts: number;
  proseTokens: number;
  seed: number;
  levels: 1 | 2;
  lambda: number | undefined;
  sinkPages: number;
  recentPages: number;
  denseLayers: number;
}

/** One way to attend: to all pages, the best by exact mass, or the best by a scorer. */
export interface QualityArm {
  name: "dense" | "oracle" | "sparse";
  sparse: SparseOptions;
  budgetTokens?: number;
  scorer?: Scorer;
}

export interface QualityPlan extends Pick<QualityLists, "pageSize" | "documents" | "facts" | "proseTokens" | "seed"> {
  tasks: readonly Task[];
  lengths: readonly number[];
  /** Dense first. */
  arms: readonly QualityArm[];
  scorers: readonly Scorer[];
  /** Tokens of the longest sequence. */
  longest: number;
}

/** Room for a question and its answer. */
export const QUESTION_TOKENS = 96;

/** @throws {PagesiftError} of kind "usage" that names the flag, its value and the nearest legal one */
export function planQuality(lists: QualityLists): QualityPlan {
  const { pageSize, documents, facts, proseTokens, seed } = lists;
  const tasks = parseWords("--task", lists.task, TASKS);
  const lengths = parseCounts("--length", lists.length, 256);
  const budgets = parseCounts("--budget", lists.budget, 1);
  const scorers = parseWords("--scorer", lists.scorer, SCORERS);
  checkBudgets([pageSize], budgets, PAGE_SIZES);
  for (const length of lengths) checkExceeds("--length", length, budgets, [pageSize]);
  return {
    ...{ tasks, lengths, scorers, pageSize, documents, facts, proseTokens, seed },
    arms: armsOf(lists, budgets, scorers),
    longest: Math.max(...lengths) + Math.max(QUESTION_TOKENS, tasks.includes("prose") ? proseTokens : 0),
  };
}

function armsOf(lists: QualityLists, budgets: readonly number[], scorers: readonly Scorer[]): QualityArm[] {
  const { pageSize, levels, sinkPages, recentPages, denseLayers, lambda } = lists;
  const common = { pageSize, levels, sinkPages, recentPages, denseLayers };
  const sparse = (budgetTokens: number, scorer: Scorer): SparseOptions => {
    const weight = lambda === undefined || scorer === "mean" || scorer === "quest" ? {} : { lambda };
    return { ...common, ...weight, mode: "on", budgetTokens, scorer };
  };
  return [
    { name: "dense", sparse: { ...common, mode: "off" } },
    ...budgets.map((budgetTokens): QualityArm => ({
      name: "oracle",
      budgetTokens,
      sparse: sparse(budgetTokens, "mean"),
    })),
    ...scorers.flatMap((scorer) =>
      budgets.map((budgetTokens): QualityArm => ({
        name: "sparse",
        budgetTokens,
        scorer,
        sparse: sparse(budgetTokens, scorer),
      }))
    ),
  ];
}

/** @throws {PagesiftError} of kind "context" if a document exceeds the context of the model */
export function checkQualityContext({ longest, lengths }: QualityPlan, maxContext: number): void {
  if (longest <= maxContext) return;
  const tail = longest - Math.max(...lengths);
  throw new PagesiftError(
    "context",
    `--length ${Math.max(...lengths)} and ${tail} tokens after it exceed the model's context: limit ${maxContext}, ` +
      `over by ${longest - maxContext}; the longest --length is ${Math.max(0, maxContext - tail)}`,
  );
}
