import type { ModelConfig } from "../folder/config.ts";
import { type KvFormat, kvRowBytes, statisticsRowBytes } from "./kv_type.ts";
import { countSparseLayers, exceedsBudget, type PagePolicy } from "./page_policy.ts";

/** What decides how long a decode step takes. */
export interface StepShape {
  backend: "cpu" | "cuda";
  /** Weights that a step reads. */
  weightBytes: number;
  numKvHeads: number;
  /** Keys and values of one token in one layer and KV head, in bytes. */
  kvBytes: number;
  /** Statistics of one page in one layer and KV head, in bytes. */
  statisticsBytes: number;
}

/** The step of a model on a backend whose caches have these types. @param weightBytes that a step reads */
export function stepShape(
  backend: StepShape["backend"],
  { numKvHeads, headDim }: Pick<ModelConfig, "numKvHeads" | "headDim">,
  weightBytes: number,
  kv: KvFormat,
  { scorer }: PagePolicy,
): StepShape {
  return {
    backend,
    weightBytes,
    numKvHeads,
    kvBytes: 2 * kvRowBytes(kv, headDim),
    statisticsBytes: statisticsRowBytes(scorer, headDim, kv.dtype),
  };
}

interface Costs {
  bytesPerSecond: number;
  /** Of a layer besides its bytes, in seconds. */
  layer: number;
  /** Of selecting in a layer: once, more for a scorer that reads variances, and per page and KV head of the sequence, in seconds. */
  selection: number;
  variances: number;
  selectionPage: number;
}

/**
 * Fitted to `bench generate` on two cores with AVX-512 (SmolLM2, docs/notes/quantized.md) and on one H200 (SmolLM2 and the shapes of
 * Llama 3.2 1B and Qwen3 8B). On a GPU the KV heads of a row run side by side, so only the longest sequence counts.
 */
const COSTS: Readonly<Record<StepShape["backend"], Costs>> = {
  cpu: { bytesPerSecond: 14.5e9, layer: 0, selection: 7e-6, variances: 0, selectionPage: 15e-9 },
  cuda: { bytesPerSecond: 4.1e12, layer: 35e-6, selection: 8e-6, variances: 8e-6, selectionPage: 0.2e-9 },
};
/** Selection leaves pages out, so it must save at least this share of a step. */
const LEAST_GAIN = 0.1;

/** Bytes of weights, keys, values and statistics that a step reads, for one sequence per length (tokens). */
export function stepReads(
  shape: StepShape,
  policy: PagePolicy,
  lengths: readonly number[],
  selects: boolean,
): number {
  const rowBytes = shape.kvBytes * shape.numKvHeads;
  const budgetTokens = policy.budgetPages * policy.pageSize;
  const allPages = pagesOf(policy, lengths).reduce((sum, count) => sum + count, 0);
  const scored = allPages * shape.numKvHeads * shape.statisticsBytes;
  let bytes = shape.weightBytes;
  for (const layer of policy.layers) {
    const selecting = selects && layer.kind === "sparse";
    const limit = layer.kind === "window" ? layer.tokens : selecting ? budgetTokens : Infinity;
    const tokens = lengths.reduce((sum, length) => sum + Math.min(length, limit), 0);
    bytes += tokens * rowBytes + (selecting ? scored : 0);
  }
  return bytes;
}

/**
 * Predicted time of a step in seconds, for one sequence per length (tokens).
 *
 * @param bytesPerSecond default: that of the machines that the costs were fitted on
 */
export function predictStep(
  shape: StepShape,
  policy: PagePolicy,
  lengths: readonly number[],
  selects: boolean,
  bytesPerSecond: number = COSTS[shape.backend].bytesPerSecond,
): number {
  const costs = COSTS[shape.backend];
  const pages = pagesOf(policy, lengths);
  const scoredPages = shape.backend === "cuda" ? Math.max(...pages) : pages.reduce((sum, count) => sum + count, 0);
  const selection = costs.selection + (policy.scorer === "diag" ? costs.variances : 0) +
    scoredPages * shape.numKvHeads * costs.selectionPage;
  const selectingLayers = selects ? countSparseLayers(policy) : 0;
  return stepReads(shape, policy, lengths, selects) / bytesPerSecond + policy.layers.length * costs.layer +
    selectingLayers * selection;
}

/** Pages of sequences of these lengths (tokens), the last one as the part that is full. */
function pagesOf({ pageSize }: PagePolicy, lengths: readonly number[]): number[] {
  return lengths.map((length) => length / pageSize);
}

/** Whether a step over sequences of these lengths (tokens) selects pages under the policy. */
export function selectsPages(shape: StepShape, policy: PagePolicy, lengths: readonly number[]): boolean {
  if (!lengths.some((length) => exceedsBudget(policy, length))) return false;
  if (!policy.onlyIfFaster) return true;
  const [dense, sparse] = [false, true].map((selects) => predictStep(shape, policy, lengths, selects));
  return (dense ?? 0) >= (1 + LEAST_GAIN) * (sparse ?? 0);
}

/** The length of a sequence alone from which on it selects, in tokens; Infinity where it never does. */
export function selectsFrom(shape: StepShape, policy: PagePolicy, maxContext: number): number {
  if (!selectsPages(shape, policy, [maxContext])) return Infinity;
  let [low, high] = [0, maxContext];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (selectsPages(shape, policy, [middle])) high = middle;
    else low = middle;
  }
  return high;
}
