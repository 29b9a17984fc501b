/** What `pagesift plan` says of a run: its memory, what fits, and what its steps read. */
import { largestBatch, largestContext, type MemoryPlan, planMemory, type RunPlan } from "../engine/memory_plan.ts";
import { kvName } from "../engine/pages/kv_type.ts";
import { countSparseLayers, exceedsBudget } from "../engine/pages/page_policy.ts";
import { predictStep, selectsFrom, stepReads, type StepShape, stepShape } from "../engine/pages/selection_cost.ts";
import { stepBytes } from "../engine/weights.ts";
import type { Device } from "../ffi/device.ts";

/** What `plan -o json` prints; docs/scale.md describes the fields. */
export interface PlanReport {
  schema: "pagesift.plan/1";
  model: string;
  /** `count` devices share the model, and all bytes are those of each; `available_bytes` those of the fullest. */
  device: {
    backend: string;
    name: string;
    threads: number;
    count: number;
    total_bytes: number;
    available_bytes: number;
  };
  context_tokens: number;
  sequences: number;
  page_tokens: number;
  budget_tokens: number;
  kv_type: string;
  bytes: MemoryPlan;
  fits: boolean;
  largest_context_tokens: number;
  largest_batch: number;
  /** Without `sparse` where no step selects at this context. */
  step_bytes: { dense: number; sparse?: number };
  auto_selects_from_tokens?: number;
  speed?: { bytes_per_second: number; dense_tokens_per_second: number; sparse_tokens_per_second?: number };
}

/** @param mostSequences up to which {@link PlanReport.largest_batch} looks */
export function planReport(device: Device, model: string, run: RunPlan, mostSequences: number): PlanReport {
  const { policy, contextTokens, config } = run;
  const bytes = planMemory(device, run);
  const { availableBytes, totalBytes, backend, name, numThreads } = device.describe();
  const shape = shapeOfStep(device, run);
  const from = policy.onlyIfFaster ? selectsFrom(shape, policy, config.maxContext) : Infinity;
  const reads = (selects: boolean): number => Math.round(stepReads(shape, policy, lengthsOf(run), selects));
  return {
    schema: "pagesift.plan/1",
    model,
    device: {
      ...{ backend, name, threads: numThreads, count: device.members },
      ...{ total_bytes: totalBytes, available_bytes: availableBytes },
    },
    context_tokens: contextTokens,
    sequences: run.numSequences,
    page_tokens: policy.pageSize,
    budget_tokens: policy.budgetPages * policy.pageSize,
    kv_type: kvName(run.kv),
    bytes,
    fits: bytes.total <= availableBytes,
    largest_context_tokens: largestContext(device, run, availableBytes),
    largest_batch: largestBatch(device, run, availableBytes, mostSequences),
    step_bytes: { dense: reads(false), ...canSelect(run) && { sparse: reads(true) } },
    ...Number.isFinite(from) && { auto_selects_from_tokens: from },
  };
}

/** Tokens per second of all sequences together, on a device that reads this fast. */
export function predictSpeed(
  device: Device,
  run: RunPlan,
  bytesPerSecond: number,
): NonNullable<PlanReport["speed"]> {
  const shape = shapeOfStep(device, run);
  const rate = (selects: boolean): number =>
    run.numSequences / predictStep(shape, run.policy, lengthsOf(run), selects, bytesPerSecond);
  return {
    bytes_per_second: bytesPerSecond,
    dense_tokens_per_second: rate(false),
    ...canSelect(run) && { sparse_tokens_per_second: rate(true) },
  };
}

function shapeOfStep({ backend }: Device, { config, plan, kv, policy }: RunPlan): StepShape {
  return stepShape(backend, config, stepBytes(plan.tensors, config), kv, policy);
}

function lengthsOf({ numSequences, contextTokens }: RunPlan): number[] {
  return Array.from({ length: numSequences }, () => contextTokens);
}

/** Whether a step at the end of the context may leave pages out. */
function canSelect({ policy, contextTokens }: RunPlan): boolean {
  return exceedsBudget(policy, contextTokens) && countSparseLayers(policy) > 0;
}
