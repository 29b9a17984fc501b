import { PagesiftError } from "../../engine/errors.ts";
import { DEFAULT_SPARSE } from "../../engine/pages/page_policy.ts";
import { present } from "../../engine/folder/config_fields.ts";
import type { SamplingOptions, SparseOptions, VerifyOptions } from "../../engine/types.ts";
import type { GenerateFlags, ModelFlags, sparseOptions } from "./generate.ts";
import type { Values } from "./option.ts";
import { formatCount } from "../../engine/text/format.ts";

/** The sparse flags that were given, as the engine takes them; a budget that is not a whole number of pages is refused. */
export function sparseOf(flags: Omit<Values<typeof sparseOptions>, "verify" | "verifyLimit">): SparseOptions {
  const pageSize = flags.pageSize ?? DEFAULT_SPARSE.pageSize;
  checkBudget("--sparse-budget", flags.sparseBudget ?? DEFAULT_SPARSE.budgetTokens, pageSize);
  checkBudget("--prefill-budget", flags.prefillBudget ?? DEFAULT_SPARSE.prefillBudgetTokens, pageSize);
  return {
    mode: flags.sparse,
    denseLayers: flags.denseLayers,
    prefill: flags.sparsePrefill,
    ...present({
      levels: flags.sparseLevels,
      budgetTokens: flags.sparseBudget,
      prefillBudgetTokens: flags.prefillBudget,
      pageSize: flags.pageSize,
      scorer: flags.sparseScorer,
      lambda: flags.sparseLambda,
      sinkPages: flags.sparseSink,
      recentPages: flags.sparseRecent,
    }),
  };
}

/** The flags of verification as the engine takes them; nothing without `--verify`. */
export function verifyOf(
  { verify: every, verifyLimit: limit, sparse }: Pick<GenerateFlags, "verify" | "verifyLimit" | "sparse">,
): { verify?: VerifyOptions } {
  if (every === undefined) {
    if (limit === undefined) return {};
    throw new PagesiftError("usage", "--verify-limit requires --verify, which measures what it limits");
  }
  if (sparse === "off") {
    throw new PagesiftError("usage", "--verify and --sparse off exclude each other: every step reads all pages");
  }
  return { verify: { every, ...limit !== undefined && { limit } } };
}

/** The sampling flags that were given, as the engine takes them. */
export function samplingOf(flags: ModelFlags): SamplingOptions & { maxTokens: number; stop: string[] } {
  return {
    maxTokens: flags.maxTokens,
    stop: flags.stop,
    repeatLastTokens: flags.repeatLastTokens,
    ...present({
      temperature: flags.temperature,
      topK: flags.topK,
      topP: flags.topP,
      minP: flags.minP,
      repeatPenalty: flags.repeatPenalty,
      seed: flags.seed,
    }),
  };
}

function checkBudget(flag: string, budget: number, pageSize: number): void {
  if (budget % pageSize === 0) return;
  const below = Math.floor(budget / pageSize) * pageSize;
  const nearest = below === 0
    ? `less than a page; the smallest is ${pageSize}`
    : `not a multiple of the page size; the nearest are ${formatCount(below)} and ${formatCount(below + pageSize)}`;
  throw new PagesiftError("usage", `${flag} ${budget} with --page-size ${pageSize} is ${nearest}`);
}
