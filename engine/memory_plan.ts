import type { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { decodeNeeds } from "./decode_batch.ts";
import { limitContext, type ModelConfig } from "./folder/config.ts";
import type { WeightPlan } from "./folder/weight_plan.ts";
import { loadedModelNeeds } from "./loaded_model.ts";
import { checkPoolTokens, largestThat, MAX_POOL_TOKENS } from "./memory.ts";
import { needBytes } from "./owned_tensors.ts";
import { cacheShape, type PoolNeed } from "./pages/kv_pool.ts";
import type { KvFormat } from "./pages/kv_type.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import { prefillNeeds } from "./prefill.ts";
import { samplerNeeds } from "./sample/native_sampler.ts";
import { weightBytes } from "./weights.ts";

/** A model whose headers are read, and how it is to run. In a group of devices, the share of each (`shardModel`). */
export interface RunPlan {
  /** With the context that the model was trained for. */
  readonly config: ModelConfig;
  readonly plan: WeightPlan;
  readonly kv: KvFormat;
  readonly policy: PagePolicy;
  /** Tokens of every sequence. */
  readonly contextTokens: number;
  /** Sequences that decode together. */
  readonly numSequences: number;
}

/** Bytes that a run allocates on its device, or on each of a group. */
export interface MemoryPlan {
  weights: number;
  /** Keys and values. */
  kv: number;
  /** Of the pages. */
  statistics: number;
  /** Of attention. */
  scratch: number;
  /** Of the forward pass, with the logits and tables that the model computes. */
  activations: number;
  /** Inputs of prompts and steps: ids, positions, page tables, scores, what is selected, and settings of the sampler. */
  inputs: number;
  total: number;
}

/**
 * What a run allocates on each device as buffers and caches: all that the device counts as allocated once the run has decoded. Scratch memory that
 * operations share and the libraries of the device come on top.
 *
 * @throws {PagesiftError} of kind "usage" when the context exceeds the model's, of kind "memory" when the pool exceeds the slot numbers;
 * {NativeError} when its bytes exceed any memory
 */
export function planMemory(device: Device, run: RunPlan): MemoryPlan {
  const { plan, kv, policy, contextTokens, numSequences } = run;
  const config = limitContext(run.config, contextTokens);
  const need = poolNeed(run);
  const shape = cacheShape(config, kv, policy, need);
  checkPoolTokens(shape);
  const cache = KvCache.measure(device, shape);
  const options = { trainedContext: run.config.maxContext };
  const model = loadedModelNeeds(device.backend, config, plan.tensors, numSequences, options);
  const parts = {
    weights: weightBytes(plan),
    kv: cache.kv,
    statistics: cache.statistics,
    scratch: cache.scratch,
    activations: model.bytes,
    inputs: inputBytes(shape, policy, model.maxTokens),
  };
  return { ...parts, total: Object.values(parts).reduce((sum, bytes) => sum + bytes, 0) };
}

function poolNeed({ contextTokens, numSequences }: RunPlan): PoolNeed {
  return { totalTokens: numSequences * contextTokens, longestTokens: contextTokens, maxSequences: numSequences };
}

function inputBytes(shape: CacheShape, policy: PagePolicy, chunkTokens: number): number {
  return needBytes(prefillNeeds(chunkTokens, shape)) + needBytes(decodeNeeds(shape, policy)) +
    needBytes(samplerNeeds(shape.maxSequences));
}

function fits(device: Device, run: RunPlan, availableBytes: number): boolean {
  try {
    return planMemory(device, run).total <= availableBytes;
  } catch (error) {
    // The native library refuses to add up what no machine has.
    if (error instanceof NativeError && error.status === Status.OutOfMemory) return false;
    throw error;
  }
}

/** The longest context in tokens with which as many sequences fit in `availableBytes`, at most the model's; 0 if none does. */
export function largestContext(device: Device, run: RunPlan, availableBytes: number): number {
  const slack = 2 * run.policy.groupPages * run.policy.pageSize;
  const most = Math.min(run.config.maxContext, Math.floor(MAX_POOL_TOKENS / run.numSequences) - slack);
  return largestThat((contextTokens) => fits(device, { ...run, contextTokens }, availableBytes), most);
}

/** The most sequences of this context that fit in `availableBytes`, up to `most`; 0 if not even one does. */
export function largestBatch(device: Device, run: RunPlan, availableBytes: number, most: number): number {
  const { contextTokens, policy } = run;
  const slots = Math.floor(MAX_POOL_TOKENS / (contextTokens + 2 * policy.groupPages * policy.pageSize));
  return largestThat(
    (numSequences) => fits(device, { ...run, numSequences }, availableBytes),
    Math.min(most, slots),
  );
}
