/**
 * Speed of decode steps of a model's shape with random weights, sparse against dense: no checkpoint, no prefill. The KV cache is filled
 * with random keys whose means drift from page to page. The arms alternate in one run; medians. The native counters must show that the
 * sparse arm selected in every layer of every step, and the dense arm never.
 *
 *     deno run -A scripts/bench_decode.ts [--shape qwen3-8b|qwen3-0.6b|llama-3.2-1b|default] [--device cuda] [--batch 24] [--context 32768]
 *       [--budget 512] [--page-size 8] [--levels 2] [--steps 20] [--repeats 5] [--json FILE]
 */
import { parseArgs } from "@std/cli/parse-args";
import { DecodeBatch } from "../engine/decode_batch.ts";
import { type DeviceChoice, deviceLabel, openDevice } from "../engine/devices.ts";
import { cacheShape, KvPool } from "../engine/kv_pool.ts";
import { checkCacheFits } from "../engine/memory.ts";
import { Model } from "../engine/model.ts";
import { countSparseLayers, exceedsBudget, type PagePolicy, resolvePolicy } from "../engine/page_policy.ts";
import { ropeFrequencies } from "../engine/rope.ts";
import type { Sequence } from "../engine/sequence.ts";
import { StepRunner } from "../engine/step_runner.ts";
import type { WeightPlan } from "../engine/weight_plan.ts";
import type { Device } from "../ffi/device.ts";
import type { Counters } from "../ffi/structs.ts";
import {
  checkMemory,
  configOf,
  fillCache,
  measurePeak,
  planShape,
  randomBlock,
  randomWeights,
  weightsRead,
} from "./support/random_model.ts";
import { log, print } from "./support/lines.ts";
import { commit, median } from "./support/session.ts";

/** Steps before those that are timed: one runs at once, one is recorded, one is replayed. */
const WARMUP_STEPS = 3;
/** Rows of logits that a model keeps. */
const MAX_BATCH = 64;

interface Options {
  shape: string;
  device: DeviceChoice;
  batch: number;
  context: number;
  budget: number;
  pageSize: number;
  levels: 1 | 2;
  steps: number;
  repeats: number;
}

/** What one arm did in one round; times are ms a step. */
interface Round {
  /** Taking in the tokens, the step, and reading the most likely next ones. */
  step: number;
  /** The recorded step alone: one start and one read. */
  replayed: number | undefined;
  /** The same, many starts without a read between. */
  queued: number | undefined;
  counters: Counters;
}

interface Arm {
  name: string;
  policy: PagePolicy;
  rounds: Round[];
}

/** All that is loaded and filled. */
interface Bench {
  options: Options;
  model: Model;
  plan: WeightPlan;
  pool: KvPool;
  sequences: readonly Sequence[];
}

function readOptions(): Options {
  const flags = parseArgs(Deno.args, {
    string: ["shape", "device", "batch", "context", "budget", "page-size", "levels", "steps", "repeats", "json"],
  });
  const count = (name: string, fallback: number): number => {
    const value = Number(flags[name] ?? fallback);
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new Error(`--${name} is ${flags[name]}, wanted a whole number from 1`);
    }
    return value;
  };
  const options = {
    shape: String(flags["shape"] ?? "qwen3-8b"),
    device: (flags["device"] ?? "cuda") as DeviceChoice,
    ...{ batch: count("batch", 24), context: count("context", 32_768), budget: count("budget", 512) },
    ...{ pageSize: count("page-size", 8), levels: count("levels", 2) as 1 | 2 },
    ...{ steps: count("steps", 20), repeats: count("repeats", 5) },
  };
  if (options.batch > MAX_BATCH) throw new Error(`--batch is ${options.batch}, wanted at most ${MAX_BATCH}`);
  return options;
}

/** What each of the `steps` of some work took, in ms. */
function timed(steps: number, work: () => void): number {
  const started = performance.now();
  work();
  return (performance.now() - started) / steps;
}

/** One round of an arm: from the filled context on, its own batch and recording. */
function runRound({ options, model, pool, sequences }: Bench, policy: PagePolicy): Round {
  const { context, steps } = options;
  for (const sequence of sequences) pool.truncate(sequence, context);
  const batch = new DecodeBatch(model.device, pool, policy);
  const runner = new StepRunner(model, pool, policy);
  let ids = sequences.map((_, row) => (row * 7919 + 1) % model.config.vocabSize);
  let read = (): readonly number[] => ids;
  const step = (): void => {
    const { best } = runner.run(batch.advance(sequences, ids));
    read = () => Array.from(best.readInts());
    ids = [...read()];
    if (ids.some((id) => id < 0)) throw new Error("A step gave logits that are no numbers");
  };
  const times = (count: number, work: () => void): void => {
    for (let index = 0; index < count; index++) work();
  };
  try {
    times(WARMUP_STEPS, step);
    pool.cache.resetCounters();
    const ms = timed(steps, () => times(steps, step));
    const counters = pool.cache.counters();
    if (!runner.replay()) return { step: ms, replayed: undefined, queued: undefined, counters };
    read();
    const replayed = timed(steps, () =>
      times(steps, () => {
        runner.replay();
        read();
      }));
    const queued = timed(steps, () => {
      times(steps, () => runner.replay());
      read();
    });
    return { step: ms, replayed, queued, counters };
  } finally {
    runner.close();
    batch.close();
  }
}

/** @throws {Error} when the native counters deny what the arm claims */
function checkCounters({ name, policy }: Arm, { selections }: Counters, steps: number): void {
  const wanted = steps * countSparseLayers(policy);
  if (selections !== wanted) {
    throw new Error(`The ${name} arm selected ${selections} times in ${steps} steps, wanted ${wanted}`);
  }
}

interface Result {
  arm: string;
  msPerStep: number;
  bestMs: number;
  /** Slowest minus fastest round, of the median. */
  spread: number;
  tokensPerSecond: number;
  weightBytes: number;
  kvBytes: number;
  statisticsBytes: number;
  bytesPerSecond: number;
  shareOfPeak: number;
  replayedMs: number | undefined;
  queuedMs: number | undefined;
  outsideShare: number | undefined;
  rounds: Round[];
}

function summarize(bench: Bench, { name, policy, rounds }: Arm, peak: number): Result {
  const { pool, plan, options: { batch, steps } } = bench;
  const weights = weightsRead(plan, batch);
  const times = rounds.map(({ step }) => step);
  const ms = median(times);
  const medianOf = (field: "replayed" | "queued"): number | undefined => {
    const values = rounds.flatMap((round) => round[field] ?? []);
    return values.length > 0 ? median(values) : undefined;
  };
  const queuedMs = medianOf("queued");
  const perStep = (field: keyof Counters): number => (rounds[0]?.counters[field] ?? 0) / steps;
  const kvBytes = perStep("pagesAttended") * pool.pageBytes;
  const statisticsBytes = perStep("pagesScored") * pool.statisticsBytes(policy);
  const bytesPerSecond = (weights + kvBytes + statisticsBytes) / (ms / 1000);
  return {
    arm: name,
    msPerStep: ms,
    bestMs: Math.min(...times),
    spread: (Math.max(...times) - Math.min(...times)) / ms,
    tokensPerSecond: batch / (ms / 1000),
    ...{ weightBytes: weights, kvBytes, statisticsBytes, bytesPerSecond },
    shareOfPeak: bytesPerSecond / peak,
    ...{ replayedMs: medianOf("replayed"), queuedMs },
    outsideShare: queuedMs === undefined ? undefined : 1 - queuedMs / ms,
    rounds,
  };
}

function tableRow(result: Result): string {
  const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(3);
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const ms = (value: number | undefined): string => value === undefined ? "-" : value.toFixed(3);
  return `| ${
    [
      result.arm,
      `${ms(result.msPerStep)} (best ${ms(result.bestMs)}, spread ${percent(result.spread)})`,
      result.tokensPerSecond.toFixed(0),
      ...[result.weightBytes, result.kvBytes, result.statisticsBytes].map(gigabytes),
      (result.bytesPerSecond / 1e9).toFixed(0),
      percent(result.shareOfPeak),
      ms(result.replayedMs),
      ms(result.queuedMs),
      result.outsideShare === undefined ? "-" : percent(result.outsideShare),
    ].join(" | ")
  } |`;
}

const HEADER =
  "| arm | ms/step | tokens/s | weights GB | KV GB | statistics GB | GB/s | of peak | replayed ms | queued ms | outside |\n" +
  "|---|---|---|---|---|---|---|---|---|---|---|";

/** Loads the random model, fills the cache, and lets the arms take turns. */
function measure(device: Device, options: Options): { results: Result[]; peak: number; recorded: boolean } {
  const maxTokens = options.context + WARMUP_STEPS + options.steps;
  const config = configOf(options.shape, maxTokens);
  const plan = planShape(config);
  const sparse = { budgetTokens: options.budget, pageSize: options.pageSize, levels: options.levels };
  const policyOf = (mode: "on" | "off"): PagePolicy =>
    resolvePolicy({ ...sparse, mode }, config.slidingWindows, device.describe().backend === "cuda");
  const arms: Arm[] = (["dense", "sparse"] as const).map((name) => (
    { name, policy: policyOf(name === "sparse" ? "on" : "off"), rounds: [] }
  ));
  if (!exceedsBudget(policyOf("on"), options.context)) {
    throw new Error("The context does not exceed the budget; nothing would be selected");
  }
  const need = { totalTokens: options.batch * maxTokens, longestTokens: maxTokens, maxSequences: options.batch };
  const shape = cacheShape(config, "bf16", policyOf("on"), need);
  checkMemory(device, plan, shape);
  const block = randomBlock();
  const peak = measurePeak(device, block);
  const started = performance.now();
  const weights = randomWeights(device, plan, block);
  const frequencies = ropeFrequencies(config.rope, config.headDim, config.maxContext);
  const model = new Model(device, config, weights, frequencies, options.batch);
  checkCacheFits(device, shape, weights.bytes);
  const pool = new KvPool(device, shape);
  const sequences = fillCache(device, pool, options.batch, options.context);
  log(`loaded and filled in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  const bench = { options, model, plan, pool, sequences };
  for (let round = 0; round < options.repeats; round++) {
    for (const arm of arms) {
      const result = runRound(bench, arm.policy);
      checkCounters(arm, result.counters, options.steps);
      arm.rounds.push(result);
    }
  }
  return { results: arms.map((arm) => summarize(bench, arm, peak)), peak, recorded: model.canRecord };
}

async function main(): Promise<void> {
  const options = readOptions();
  const { device, notice } = openDevice(options.device, undefined);
  if (notice) log(notice);
  using _device = device;
  const command = `deno run -A scripts/bench_decode.ts ${Deno.args.join(" ")}`.trim();
  const made = { commit: Deno.env.get("PAGESIFT_COMMIT") ?? await commit(), device: deviceLabel(device), command };
  const { results, peak, recorded } = measure(device, options);
  const ratio = (results[0]?.msPerStep ?? NaN) / (results[1]?.msPerStep ?? NaN);
  print(
    `commit ${made.commit}, ${made.device}, steps ${
      recorded ? "recorded as a graph and replayed" : "not recorded"
    }\n\n    ${command}\n`,
  );
  print(
    `Shape ${options.shape} with random weights, batch ${options.batch}, synthetic keys and values of ${options.context} tokens a sequence ` +
      `(means drift from page to page), page ${options.pageSize}, budget ${options.budget}, levels ${options.levels}; ` +
      `median of ${options.repeats} x ${options.steps} steps, arms alternate. Peak: ${
        (peak / 1e9).toFixed(0)
      } GB/s, a plain read in the same run. ` +
      "Outside: what of a step is neither in a queue of replayed steps; gaps between the kernels of one step count as inside.\n",
  );
  print(HEADER);
  for (const result of results) print(tableRow(result));
  print(`\nsparse / dense: ${ratio.toFixed(2)} times the speed`);
  const file = parseArgs(Deno.args, { string: ["json"] })["json"];
  if (file) {
    Deno.writeTextFileSync(
      String(file),
      `${JSON.stringify({ ...made, recorded, options, peak, ratio, results }, null, 2)}\n`,
    );
  }
}

if (import.meta.main) await main();
