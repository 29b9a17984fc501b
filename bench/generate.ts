/** `bench generate`: speed of prompts and of decode steps of a whole model, dense and sparse in alternation. */
import { KvPool } from "../engine/pages/kv_pool.ts";
import { breather, Prefill } from "../engine/prefill.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import type { Counters } from "../ffi/structs.ts";
import type { BenchModel } from "./bench_model.ts";
import { DecodeTurn, type TurnTimes } from "./decode_turn.ts";
import { fillSequences } from "./fill_cache.ts";
import { type DecodeArm, decodeArms, type GenerateCase, type GeneratePlan, poolShape } from "./generate_plan.ts";
import { PeakReader } from "./peak.ts";
import { definedOnly, type Hooks, type Row } from "./row.ts";
import { median, timingOf } from "./statistics.ts";

/** What a case works with. */
interface Bench {
  model: BenchModel;
  plan: GeneratePlan;
  one: GenerateCase;
  pool: KvPool;
  sequences: readonly Sequence[];
  peak: PeakReader;
  breathe: () => Promise<void>;
}

/**
 * Measures test by test; yields the rows of each.
 *
 * @throws {Error} when the native counters deny that sparse arms selected in every layer and step, and dense ones never
 */
export async function* benchGenerate(
  model: BenchModel,
  plan: GeneratePlan,
  { signal, onProgress }: Hooks = {},
): AsyncGenerator<Row[]> {
  const total = plan.cases.reduce((sum, { prompts }) => sum + prompts.length + plan.decodes.length, 0);
  using peak = new PeakReader(model.device);
  let done = 0;
  const tell = (one: GenerateCase, test: string): void =>
    onProgress?.({ done, total, label: `${test} at depth ${one.depthTokens}, batch ${one.batch}` });
  for (const one of plan.cases) {
    tell(one, "filling the cache");
    const breathe = breather(signal);
    const bench = { model, plan, one, peak, breathe, ...await openPool(model, plan, one, breathe) };
    try {
      for (const prompt of one.prompts) {
        tell(one, `pp${prompt}`);
        yield [await benchPrompt(bench, prompt)];
        done++;
      }
      for (const decode of plan.decodes) {
        tell(one, `tg${decode}`);
        yield await benchDecode(bench, decode);
        done++;
      }
    } finally {
      bench.pool.close();
    }
  }
}

function scoresGroups({ device }: BenchModel): boolean {
  return device.describe().backend === "cuda";
}

/** A pool whose sequences hold the tokens of the depth. */
async function openPool(
  model: BenchModel,
  plan: GeneratePlan,
  one: GenerateCase,
  breathe: () => Promise<void>,
): Promise<Pick<Bench, "pool" | "sequences">> {
  const pool = new KvPool(model.device, poolShape(plan, one, model.config, model.dtype, scoresGroups(model)));
  const sequences = Array.from({ length: one.batch }, () => pool.openSequence());
  try {
    if (!plan.prefillDepth) await fillSequences(model.device, pool.cache, sequences, one.depthTokens, breathe);
    else for (const sequence of sequences) await prefill(model, pool, plan, one, sequence, one.depthTokens, breathe);
  } catch (error) {
    pool.close();
    throw error;
  }
  return { pool, sequences };
}

/** Token ids that are no two alike for long, of any vocabulary. */
function randomIds(count: number, vocabSize: number): number[] {
  return Array.from({ length: count }, (_, index) => (index * 7919 + 1) % vocabSize);
}

/** Takes random tokens in. Returns seconds. */
async function prefill(
  { model, device, config }: BenchModel,
  pool: KvPool,
  plan: GeneratePlan,
  one: GenerateCase,
  sequence: Sequence,
  tokens: number,
  breathe: () => Promise<void>,
): Promise<number> {
  const [dense] = decodeArms(plan, one, config, device.describe().backend === "cuda");
  const work = new Prefill(model, pool, (dense as DecodeArm).policy);
  try {
    await device.wait();
    const started = performance.now();
    await work.run(sequence, randomIds(tokens, config.vocabSize), breathe, () => {});
    await device.wait();
    return (performance.now() - started) / 1000;
  } finally {
    work.close();
  }
}

/** A prompt behind the depth, in one sequence; prompts are dense. */
async function benchPrompt({ model, plan, one, pool, sequences, breathe }: Bench, prompt: number): Promise<Row> {
  const [sequence] = sequences as [Sequence];
  const seconds: number[] = [];
  for (let round = -1; round < plan.repetitions; round++) {
    pool.truncate(sequence, one.depthTokens);
    const time = await prefill(model, pool, plan, one, sequence, prompt, breathe);
    if (round >= 0) seconds.push(time);
  }
  pool.truncate(sequence, one.depthTokens);
  const timing = timingOf(seconds);
  return {
    ...{ subject: "generate", arm: "dense", model: model.name, batch: 1, prompt_tokens: prompt },
    ...{ depth_tokens: one.depthTokens, dtype: model.dtype, page_size: one.pageSize, ...timing },
    tokens_per_s: prompt / timing.median_us * 1e6,
  };
}

/** Decode steps of all arms in turn. */
async function benchDecode(bench: Bench, steps: number): Promise<Row[]> {
  const { model, plan, one, pool, sequences } = bench;
  const arms = decodeArms(plan, one, model.config, scoresGroups(model)).map((arm) => ({
    arm,
    turns: [] as TurnTimes[],
  }));
  const peakSeconds: number[] = [];
  for (let round = 0; round < plan.repetitions; round++) {
    peakSeconds.push(bench.peak.read());
    for (const { arm, turns } of arms) {
      await bench.breathe();
      for (const sequence of sequences) pool.truncate(sequence, one.depthTokens);
      turns.push(await new DecodeTurn(model, pool, sequences, arm).run(steps, bench.breathe));
    }
  }
  const [dense] = arms;
  const denseUs = timingOf((dense?.turns ?? []).map(({ step }) => step)).median_us;
  const beside = { denseUs, peakRate: bench.peak.rate(peakSeconds) };
  return arms.map(({ arm, turns }) => decodeRow(bench, arm, turns, steps, beside));
}

function decodeRow(
  bench: Bench,
  arm: DecodeArm,
  turns: readonly TurnTimes[],
  steps: number,
  { denseUs, peakRate }: { denseUs: number; peakRate: number },
): Row {
  const { model, one, pool } = bench;
  const timing = timingOf(turns.map(({ step }) => step));
  const counted = turns[0]?.counted as Counters;
  const weights = model.weightsRead(one.batch);
  const kvBytes = counted.pagesAttended * pool.pageBytes + counted.pagesScored * pool.statisticsBytes(arm.policy);
  const bytes = weights === undefined ? undefined : weights + kvBytes / steps;
  const rate = bytes === undefined ? undefined : bytes / timing.median_us / 1e3;
  const queued = turns.flatMap((turn) => turn.queued ?? []);
  const rows = steps * one.batch * model.config.numLayers * model.config.numKvHeads;
  return definedOnly<Row>({
    subject: "generate",
    arm: arm.name,
    model: model.name,
    batch: one.batch,
    decode_tokens: steps,
    depth_tokens: one.depthTokens,
    dtype: model.dtype,
    page_size: one.pageSize,
    budget_tokens: arm.budgetTokens,
    scorer: arm.scorer,
    ...timing,
    tokens_per_s: one.batch / timing.median_us * 1e6,
    bytes: bytes === undefined ? undefined : Math.round(bytes),
    gb_per_s: rate,
    of_peak: rate === undefined ? undefined : rate * 1e9 / peakRate,
    peak_gb_per_s: peakRate / 1e9,
    of_dense: denseUs / timing.median_us,
    queued_us: queued.length === 0 ? undefined : median(queued) * 1e6,
    pages_read: counted.pagesAttended / rows,
    pages_dense: counted.pagesInContext / rows,
  });
}
