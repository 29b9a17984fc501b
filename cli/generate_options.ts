import { PagesiftError } from "../engine/errors.ts";
import type { SamplingOptions, SparseOptions } from "../engine/types.ts";
import type { ModelFlags } from "./options_generate.ts";
import { formatCount } from "./format.ts";

/** The sparse flags as the engine takes them; a budget that is no number of whole pages is refused. */
export function sparseOf(flags: ModelFlags): SparseOptions {
  checkBudget(flags.sparseBudget, flags.pageSize);
  return {
    mode: flags.sparse,
    budgetTokens: flags.sparseBudget,
    pageSize: flags.pageSize,
    scorer: flags.sparseScorer,
    sinkPages: flags.sparseSink,
    recentPages: flags.sparseRecent,
    denseLayers: flags.denseLayers,
    levels: flags.sparseLevels,
    ...flags.sparseLambda !== undefined && { lambda: flags.sparseLambda },
  };
}

/** The sampling flags as the engine takes them. */
export function samplingOf(flags: ModelFlags): SamplingOptions & { maxTokens: number; stop: string[] } {
  return {
    maxTokens: flags.maxTokens,
    stop: flags.stop,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    minP: flags.minP,
    repeatPenalty: flags.repeatPenalty,
    repeatLastTokens: flags.repeatLastTokens,
    ...flags.seed !== undefined && { seed: flags.seed },
  };
}

function checkBudget(budget: number, pageSize: number): void {
  if (budget % pageSize === 0) return;
  const below = Math.floor(budget / pageSize) * pageSize;
  const nearest = below === 0
    ? `less than a page; the smallest is ${pageSize}`
    : `not a multiple of the page size; the nearest are ${formatCount(below)} and ${formatCount(below + pageSize)}`;
  throw new PagesiftError("usage", `--sparse-budget ${budget} with --page-size ${pageSize} is ${nearest}`);
}
