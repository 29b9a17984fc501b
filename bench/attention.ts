/** `bench attention`: one layer's decode step in parts, as a whole, and dense, for each combination of settings. */
import { eventLoopYield } from "../engine/event_loop.ts";
import type { Device } from "../ffi/device.ts";
import { type AttentionArm, AttentionArms } from "./attention_arms.ts";
import { AttentionInputs } from "./attention_case.ts";
import { caseShape, planLayers } from "./attention_memory.ts";
import { type AttentionCase, type AttentionPlan, pageBytes, pagesOf, rowsOf } from "./attention_plan.ts";
import { type ArmResult, timeArms } from "./arms.ts";
import { agreementOf } from "./oracle.ts";
import { groupMasses } from "./page_mass.ts";
import { PeakReader } from "./peak.ts";
import { definedOnly, type Hooks, type Row } from "./row.ts";
import { mean, timingOf } from "./statistics.ts";

const WARMUPS = 1;
/** Consecutive calls touch at least this many pages, so that `attend` alone finds few of them in a cache. */
const ATTENDED_BYTES = 256 << 20;
const MOST_QUERIES = 32;
/** Recall is computed for the first queries, over the first and the last sequence. */
const RECALL_QUERIES = 2;

/**
 * Cases with the number of layers that fits, in order. @throws {PagesiftError} of kind "memory" for the first case
 * that does not fit
 */
export function fitCases(device: Device, plan: AttentionPlan): { wanted: AttentionCase; numLayers: number }[] {
  return plan.cases.map((wanted) => ({ wanted, numLayers: planLayers(wanted, plan, device) }));
}

/**
 * Measures case by case; yields the rows of each.
 *
 * @throws {Error} if the native counters contradict an arm's name
 */
export async function* benchAttention(
  device: Device,
  plan: AttentionPlan,
  { signal, onProgress }: Hooks = {},
): AsyncGenerator<Row[]> {
  const cases = fitCases(device, plan);
  using peak = new PeakReader(device);
  for (const [done, { wanted, numLayers }] of cases.entries()) {
    onProgress?.({ done, total: cases.length, label: caseLabel(wanted) });
    yield await benchCase(device, wanted, plan, { numLayers, peak, signal });
  }
}

function caseLabel({ contextTokens, batch, queryHeads, kvHeads, headDim, pageSize }: AttentionCase): string {
  return `context ${contextTokens}, batch ${batch}, ${queryHeads}/${kvHeads} heads of ${headDim}, page ${pageSize}`;
}

interface Circumstances {
  numLayers: number;
  peak: PeakReader;
  signal: AbortSignal | undefined;
}

async function benchCase(
  device: Device,
  wanted: AttentionCase,
  plan: AttentionPlan,
  { numLayers, peak, signal }: Circumstances,
): Promise<Row[]> {
  const shape = caseShape(wanted, plan, device, numLayers);
  const numQueries = queriesFor(wanted, numLayers);
  using inputs = await AttentionInputs.open(device, wanted, shape, numQueries, eventLoopYield(signal));
  const arms = new AttentionArms(wanted, plan, inputs, device.records).all();
  const timing = { warmups: WARMUPS, repetitions: plan.repetitions, signal, peak };
  const { results, peakRate } = await timeArms(device, inputs.cache, arms, timing);
  const masses = exactMasses(wanted, inputs);
  const denseUs = timingOf(results.find(({ arm }) => arm.name === "dense")?.seconds ?? []).median_us;
  return results.map((result) => rowOf(wanted, plan, inputs, masses, result, { peakRate, denseUs }));
}

/** Enough queries that layers times queries attend to more than a cache holds. */
function queriesFor(wanted: AttentionCase, numLayers: number): number {
  const smallest = Math.min(...wanted.budgets) / wanted.pageSize * rowsOf(wanted) * pageBytes(wanted);
  return Math.min(MOST_QUERIES, Math.max(RECALL_QUERIES, Math.ceil(ATTENDED_BYTES / (smallest * numLayers))));
}

/** The exact mass of one query and sequence, by KV head. */
interface ExactMass {
  query: number;
  sequence: number;
  masses: readonly Float64Array[];
}

/** Masses of the first queries in layer 0, for the first and the last sequence. */
function exactMasses(wanted: AttentionCase, inputs: AttentionInputs): ExactMass[] {
  const { pageTable, lengths } = inputs.tables;
  const numPages = pagesOf(wanted);
  const mass = inputs.create("f32", [1, wanted.queryHeads, numPages]);
  return [...new Set([0, wanted.batch - 1])].flatMap((sequence) => {
    const sequences = { pageTable: pageTable.rows(sequence, 1), lengths: lengths.rows(sequence, 1) };
    return inputs.queries.slice(0, RECALL_QUERIES).map((each, query) => {
      const q = each.rows(sequence, 1);
      return { query, sequence, masses: groupMasses(inputs.cache, { layer: 0, q, sequences, mass, numPages }) };
    });
  });
}

function rowOf(
  wanted: AttentionCase,
  plan: AttentionPlan,
  inputs: AttentionInputs,
  masses: readonly ExactMass[],
  { arm, seconds, counted }: ArmResult<AttentionArm>,
  { peakRate, denseUs }: { peakRate: number; denseUs: number },
): Row {
  const timing = timingOf(seconds);
  const bytes = arm.bytes(counted);
  const rate = bytes / timing.median_us / 1e3;
  const whole = arm.name === "dense" || arm.name === "sparse";
  const calls = arm.calls * rowsOf(wanted);
  const sparse = arm.name === "sparse" && arm.selection && arm.budgetTokens !== undefined;
  return definedOnly<Row>({
    subject: "attention",
    arm: arm.name,
    context_tokens: wanted.contextTokens,
    batch: wanted.batch,
    query_heads: wanted.queryHeads,
    kv_heads: wanted.kvHeads,
    head_dim: wanted.headDim,
    dtype: wanted.dtype,
    page_size: wanted.pageSize,
    budget_tokens: arm.budgetTokens,
    scorer: arm.scorer,
    ...timing,
    bytes: Math.round(bytes),
    gb_per_s: rate,
    of_peak: rate * 1e9 / peakRate,
    peak_gb_per_s: peakRate / 1e9,
    of_dense: whole ? denseUs / timing.median_us : undefined,
    rotated_bytes: rotatedBytes(wanted, inputs, arm, bytes),
    ...whole ? { pages_read: counted.pagesAttended / calls, pages_dense: counted.pagesInContext / calls } : {},
    ...sparse ? agreement(wanted, plan, inputs, arm, masses) : {},
  });
}

/**
 * Bytes that pass before a call touches the same memory again. Selected pages count once, however many calls
 * select them.
 */
function rotatedBytes(wanted: AttentionCase, inputs: AttentionInputs, arm: AttentionArm, bytes: number): number {
  const { numLayers } = inputs.cache.shape;
  if (arm.name === "select") return bytes;
  if (!arm.selection) return Math.round(bytes * numLayers);
  const { batch, kvHeads } = wanted;
  const chosen = arm.selection.selected.readInts();
  const perCall = chosen.length / arm.calls;
  const [k, pages] = [perCall / (batch * kvHeads), pagesOf(wanted)];
  const seen = new Set<number>();
  chosen.forEach((page, index) => {
    const layer = Math.floor(index / perCall) % numLayers;
    const row = Math.floor(index % perCall / k);
    seen.add((layer * batch * kvHeads + row) * pages + page);
  });
  const statistics = bytes - rowsOf(wanted) * k * pageBytes(wanted);
  return Math.round(seen.size * pageBytes(wanted) + Math.max(0, statistics) * numLayers);
}

/** Recall and mass of the pages that layer 0 selected for the queries whose exact masses are known. */
function agreement(
  wanted: AttentionCase,
  { sinkPages, recentPages }: AttentionPlan,
  inputs: AttentionInputs,
  { selection, budgetTokens = 0 }: AttentionArm,
  exact: readonly ExactMass[],
): Pick<Row, "recall" | "mass_kept" | "oracle_mass"> {
  const { batch, kvHeads, pageSize } = wanted;
  const k = budgetTokens / pageSize;
  const rule = { budgetPages: k, sinkPages, recentPages };
  const selected = selection?.selected.readInts() ?? new Int32Array();
  const each = exact.flatMap(({ query, sequence, masses }) => {
    const call = query * inputs.cache.shape.numLayers; // layer 0 of this query
    return Array.from({ length: kvHeads }, (_, head) => {
      const first = ((call * batch + sequence) * kvHeads + head) * k;
      const chosen = Array.from(selected.subarray(first, first + k));
      return agreementOf(masses[head] ?? new Float64Array(), chosen, rule);
    });
  });
  return {
    recall: mean(each.map(({ recall }) => recall)),
    mass_kept: mean(each.map((one) => one.mass)),
    oracle_mass: mean(each.map((one) => one.oracleMass)),
  };
}
