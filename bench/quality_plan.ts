/** Which tasks and arms `bench quality` measures, checked as a whole before the model is loaded. */
import { PagesiftError } from "../engine/errors.ts";
import { PAGE_SIZES, SCORERS } from "../engine/pages/page_policy.ts";
import type { Scorer, SparseOptions } from "../engine/types.ts";
import type { KvCache } from "../ffi/kv_cache.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { RULER_TASKS, type RulerTask } from "./ruler.ts";
import { checkBudgets, checkExceeds, parseCounts, parseWords, splitList, usageError } from "./lists.ts";

const TASKS = ["needle", "pairs", "prose", ...RULER_TASKS] as const;
export type Task = (typeof TASKS)[number];
/** Stands for all tasks after RULER. */
const ALL_RULER = "ruler";
/** How the name of a task file ends. */
const FILE_ENDING = ".jsonl";

/** The lists from the command line. */
export interface QualityLists {
  task: string;
  length: string;
  budget: string;
  scorer: string;
  pageSize: string;
  documents: number;
  facts: number;
  proseTokens: number;
  seed: number;
  chat: boolean;
  levels: number | undefined;
  lambda: number | undefined;
  sinkPages: number;
  recentPages: number;
  denseLayers: number;
  /** Tokens before its own that a tile of a document reads; 0 reads documents densely. */
  prefillBudget: number;
}

/** One way to attend: to all pages, the best by exact mass, or the best by a scorer. */
export interface QualityArm {
  name: "dense" | "oracle" | "sparse";
  sparse: SparseOptions;
  budgetTokens?: number;
  /** The scorer, and the weight of the spread where the list names one: `diag:2`. */
  scorer?: string;
  /** What the oracle ranks pages by in a study, instead of the exact mass. */
  rank?: RankPages;
}

/** Ranks of the pages of a sequence, `[Hk]`, each `[P]`. `q` f32 `[1, Hq, d]`; `pages` are the physical pages in order. */
export type RankPages = (cache: KvCache, layer: number, q: Tensor, pages: readonly number[]) => Float64Array[];

/** The arms of one page size: they read the same cache. */
export interface QualityPass {
  pageSize: number;
  /** Dense first. */
  arms: readonly QualityArm[];
}

/** A scorer of the list, and the weight of the spread that follows it. */
interface WeightedScorer {
  label: string;
  scorer: Scorer;
  lambda: number | undefined;
}

export interface QualityPlan extends Pick<QualityLists, "documents" | "facts" | "proseTokens" | "seed"> {
  tasks: readonly Task[];
  /** Paths of task files. */
  files: readonly string[];
  /** Tokens of documents; empty if there are only files. */
  lengths: readonly number[];
  /** One per page size. */
  passes: readonly QualityPass[];
  scorers: readonly Scorer[];
  /** The largest budget, which documents must exceed. */
  mostBudgetTokens: number;
  /** Tokens of the longest sequence, without those of files. */
  longest: number;
}

/** Room for a question and its answer, and for those of a task after RULER. */
const QUESTION_TOKENS = 96;
const RULER_QUESTION_TOKENS = 320;

/** @throws {PagesiftError} of kind "usage" that names the flag, its value and the nearest legal one */
export function planQuality(lists: QualityLists): QualityPlan {
  const { documents, facts, proseTokens, seed } = lists;
  const { tasks, files } = parseTasks(lists.task);
  if (lists.chat && !tasks.some(isRuler) && files.length === 0) {
    throw usageError(`--chat applies to tasks after RULER and to files, and --task has neither: ${lists.task}`);
  }
  const lengths = tasks.length === 0 ? [] : parseCounts("--length", lists.length, 256);
  const budgets = parseCounts("--budget", lists.budget, 1);
  const pageSizes = parseCounts("--page-size", lists.pageSize, 1);
  const weighted = parseScorers(lists.scorer);
  checkBudgets(pageSizes, budgets, PAGE_SIZES);
  if (lists.prefillBudget > 0) checkBudgets(pageSizes, [lists.prefillBudget], PAGE_SIZES);
  for (const length of lengths) checkExceeds("--length", length, budgets, pageSizes);
  const tails = tasks.map((task) =>
    task === "prose" ? proseTokens : isRuler(task) ? RULER_QUESTION_TOKENS : QUESTION_TOKENS
  );
  return {
    ...{ tasks, files, lengths, documents, facts, proseTokens, seed },
    scorers: [...new Set(weighted.map(({ scorer }) => scorer))],
    passes: pageSizes.map((pageSize) => ({ pageSize, arms: armsOf(lists, pageSize, budgets, weighted) })),
    mostBudgetTokens: Math.max(...budgets),
    longest: Math.max(0, ...lengths) + Math.max(0, ...tails),
  };
}

/** Whether a task is one of those after RULER. */
export function isRuler(task: Task): task is RulerTask {
  return RULER_TASKS.some((each) => each === task);
}

/** @throws {PagesiftError} of kind "usage" */
function parseTasks(text: string): { tasks: Task[]; files: string[] } {
  const items = splitList("--task", text);
  const files = items.filter((item) => item.endsWith(FILE_ENDING));
  const words = items.filter((item) => !item.endsWith(FILE_ENDING)).flatMap((item) =>
    item === ALL_RULER ? RULER_TASKS : item
  );
  const also = `, ${ALL_RULER} for those from ${RULER_TASKS[0]} on, or a file that ends in ${FILE_ENDING}`;
  return {
    tasks: words.length === 0 ? [] : parseWords("--task", words.join(","), TASKS, also),
    files: [...new Set(files)],
  };
}

/** Parses `unique:1,diag:2,quest`. @throws {PagesiftError} of kind "usage" */
function parseScorers(text: string): WeightedScorer[] {
  return [...new Set(splitList("--scorer", text))].map((label) => {
    const [name = "", weight] = label.split(/:(.*)/);
    const [scorer = "mean"] = parseWords("--scorer", name, SCORERS);
    if (weight === undefined) return { label, scorer, lambda: undefined };
    if (!weighsSpread(scorer)) throw usageError(`--scorer contains ${label}, but ${scorer} takes no weight`);
    if (/^\d+(\.\d+)?$/.test(weight)) return { label, scorer, lambda: Number(weight) };
    throw usageError(`--scorer contains "${label}", expected a number from 0 behind the colon, such as ${scorer}:1.5`);
  });
}

function weighsSpread(scorer: Scorer): boolean {
  return scorer === "unique" || scorer === "diag";
}

function armsOf(
  lists: QualityLists,
  pageSize: number,
  budgets: readonly number[],
  scorers: readonly WeightedScorer[],
): QualityArm[] {
  const { levels, sinkPages, recentPages, denseLayers, prefillBudget } = lists;
  const prefill = prefillBudget > 0 ? { prefill: "on", prefillBudgetTokens: prefillBudget } as const : {};
  const common = { pageSize, sinkPages, recentPages, denseLayers, ...levels !== undefined && { levels }, ...prefill };
  const sparse = (budgetTokens: number, scorer: Scorer, lambda = lists.lambda): SparseOptions => {
    const weight = lambda !== undefined && weighsSpread(scorer) ? { lambda } : {};
    return { ...common, ...weight, mode: "on", budgetTokens, scorer };
  };
  return [
    { name: "dense", sparse: { ...common, mode: "off" } },
    ...budgets.map((budgetTokens): QualityArm => ({
      name: "oracle",
      budgetTokens,
      sparse: sparse(budgetTokens, "mean"),
    })),
    ...scorers.flatMap(({ label, scorer, lambda }) =>
      budgets.map((budgetTokens): QualityArm => ({
        name: "sparse",
        budgetTokens,
        scorer: label,
        sparse: sparse(budgetTokens, scorer, lambda),
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
