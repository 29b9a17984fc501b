/** `bench generate`: speed of prompts and of decode steps of a whole model, dense and sparse in alternation. */
import { countedBetween } from "../engine/run_stats.ts";
import { PagesiftError } from "../engine/errors.ts";
import { type EventLoopYield, eventLoopYield } from "../engine/event_loop.ts";
import { countSparseLayers } from "../engine/pages/page_policy.ts";
import { kvName } from "../engine/pages/kv_type.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import { Session } from "../engine/session.ts";
import type { Counters } from "../ffi/structs.ts";
import { checkSelections } from "./activity.ts";
import type { BenchModel } from "./bench_model.ts";
import { fillSequences } from "./fill_cache.ts";
import {
  caseNeed,
  decodeArms,
  type GenerateCase,
  type GeneratePlan,
  promptArms,
  type ReadingArm,
  WARMUP_STEPS,
} from "./generate_plan.ts";
import { PeakReader } from "./peak.ts";
import { definedOnly, type Hooks, type Row } from "./row.ts";
import { median, timingOf } from "./statistics.ts";

/** The resources of a case. */
interface Bench {
  model: BenchModel;
  plan: GeneratePlan;
  one: GenerateCase;
  /** Dense first. */
  arms: readonly ReadingArm[];
  session: Session;
  sequences: readonly Sequence[];
  peak: PeakReader;
  signal: AbortSignal | undefined;
  yieldToEventLoop: EventLoopYield;
}

/**
 * Measures one test after another and yields the rows of each.
 *
 * @throws {Error} unless the native counters show that sparse arms selected in every layer and step, and dense arms never
 */
export async function* benchGenerate(
  model: BenchModel,
  plan: GeneratePlan,
  { signal, onProgress }: Hooks = {},
): AsyncGenerator<Row[]> {
  const { loaded } = model;
  const total = plan.cases.reduce((sum, { prompts }) => sum + prompts.length + plan.decodes.length, 0);
  using peak = new PeakReader(loaded.device);
  let done = 0;
  const report = (one: GenerateCase, test: string): void =>
    onProgress?.({ done, total, label: `${test} at depth ${one.depthTokens}, batch ${one.batch}` });
  for (const one of plan.cases) {
    report(one, "filling the cache");
    const arms = decodeArms(plan, one, loaded.config, loaded.scoresGroups);
    const { need, extra } = caseNeed(plan, one);
    using session = Session.open(loaded, arms[0].policy, need, extra);
    const sequences = Array.from({ length: one.batch }, () => session.openSequence());
    const bench = {
      model,
      plan,
      one,
      arms,
      session,
      sequences,
      peak,
      signal,
      yieldToEventLoop: eventLoopYield(signal),
    };
    await fillToDepth(bench);
    for (const prompt of one.prompts) {
      report(one, `pp${prompt}`);
      yield await benchPrompt(bench, prompt);
      done++;
    }
    for (const decode of plan.decodes) {
      report(one, `tg${decode}`);
      yield await benchDecode(bench, decode);
      done++;
    }
  }
}

/** Extends every sequence to the depth. */
async function fillToDepth(bench: Bench): Promise<void> {
  const { model: { loaded }, plan, one, session, sequences, yieldToEventLoop } = bench;
  if (!plan.prefillDepth) {
    await fillSequences(loaded.device, session.pool.cache, sequences, one.depthTokens, yieldToEventLoop);
  } else for (const sequence of sequences) await prefill(bench, sequence, one.depthTokens);
}

/** Token ids for any vocabulary; neighbours differ. */
function randomIds(count: number, vocabSize: number): number[] {
  return Array.from({ length: count }, (_, index) => (index * 7919 + 1) % vocabSize);
}

/** Appends random tokens to a sequence. Returns seconds. */
async function prefill(
  { model, session, signal }: Bench,
  sequence: Sequence,
  tokens: number,
  policy = session.policy,
): Promise<number> {
  const { device, config } = model.loaded;
  const ids = randomIds(tokens, config.vocabSize);
  await device.wait();
  const started = performance.now();
  await session.prefill(sequence, ids, { signal, policy });
  return (performance.now() - started) / 1000;
}

/** A prompt after the depth, in one sequence, read densely and sparsely in turn. */
async function benchPrompt(bench: Bench, prompt: number): Promise<Row[]> {
  const { model: { name: model, loaded }, plan, one, session, sequences } = bench;
  const [sequence] = sequences as [Sequence];
  const arms = promptArms(plan, one, prompt, loaded.config, loaded.scoresGroups);
  const seconds = arms.map((): number[] => []);
  for (let round = -1; round < plan.repetitions; round++) {
    for (const [index, { name, policy }] of arms.entries()) {
      session.truncate(sequence, one.depthTokens);
      const before = session.counters();
      const time = await prefill(bench, sequence, prompt, policy);
      const { promptPagesVisible } = countedBetween(before, session.counters());
      if (promptPagesVisible > 0 !== (name === "sparse")) {
        throw new Error(`The ${name} arm of a prompt of ${prompt} tokens was not read as its name says`);
      }
      if (round >= 0) seconds[index]?.push(time);
    }
  }
  session.truncate(sequence, one.depthTokens);
  return arms.map(({ name, budgetTokens, scorer }, index) => {
    const timing = timingOf(seconds[index] ?? []);
    return definedOnly({
      ...{ subject: "generate", arm: name, model, batch: 1, prompt_tokens: prompt },
      ...{ depth_tokens: one.depthTokens, dtype: kvName(loaded.kv), page_size: one.pageSize },
      ...{ budget_tokens: budgetTokens, scorer, ...timing, tokens_per_s: prompt / timing.median_us * 1e6 },
    });
  });
}

/** Times in seconds per step. */
interface TurnTimes {
  /** Uploading the tokens, the step, and reading the most likely next tokens. */
  step: number;
  /** Recorded steps back to back without a read between them; only if the device supports recording. */
  queued: number | undefined;
  /** Counters of the steps in `step`. */
  counted: Counters;
}

/** Decode steps of all arms, alternating. */
async function benchDecode(bench: Bench, steps: number): Promise<Row[]> {
  const { plan, one, session, sequences } = bench;
  const arms = bench.arms.map((arm) => ({ arm, turns: [] as TurnTimes[] }));
  const peakSeconds: number[] = [];
  for (let round = 0; round < plan.repetitions; round++) {
    peakSeconds.push(bench.peak.read());
    for (const { arm, turns } of arms) {
      await bench.yieldToEventLoop();
      for (const sequence of sequences) session.truncate(sequence, one.depthTokens);
      turns.push(await decodeTurn(bench, arm, steps));
    }
  }
  const [dense] = arms;
  const denseUs = timingOf((dense?.turns ?? []).map(({ step }) => step)).median_us;
  const beside = { denseUs, peakRate: bench.peak.rate(peakSeconds) };
  return arms.map(({ arm, turns }) => decodeRow(bench, arm, turns, steps, beside));
}

/** Steps of one arm after the depth. @throws {Error} if the native counters contradict the arm */
async function decodeTurn(bench: Bench, arm: ReadingArm, steps: number): Promise<TurnTimes> {
  const { model, session, sequences } = bench;
  const ids = sequences.map((_, row) => (row * 7919 + 1) % model.loaded.config.vocabSize);
  const warm = await runSteps(bench, arm, ids, WARMUP_STEPS);
  const before = session.counters();
  const { seconds } = await runSteps(bench, arm, warm.ids, steps);
  const counted = countedBetween(before, session.counters());
  checkSelections(arm.name, steps * countSparseLayers(arm.policy), counted);
  return { step: seconds, queued: timeQueued(bench, arm, steps), counted };
}

/** Repeats the latest step, with one read at the end. */
function timeQueued({ model, session }: Bench, { policy }: ReadingArm, steps: number): number | undefined {
  if (!session.replay(policy)) return undefined;
  using probe = model.loaded.device.createBuffer(4);
  probe.read(new Uint8Array(4));
  const started = performance.now();
  for (let count = 0; count < steps; count++) session.replay(policy);
  probe.read(new Uint8Array(4));
  return (performance.now() - started) / 1000 / steps;
}

/**
 * Appends tokens to all sequences, `steps` of them to each. As in `generate`, a step starts before the tokens of the one before are read, where
 * the device can.
 *
 * @param ids the first tokens
 * @returns the tokens behind the last step, and seconds per step
 */
async function runSteps(
  { session, sequences, yieldToEventLoop }: Bench,
  { policy }: ReadingArm,
  ids: readonly number[],
  steps: number,
): Promise<{ ids: readonly number[]; seconds: number }> {
  const ahead = session.aheadSteps(policy);
  const step = ahead
    ? (count: number): readonly number[] => {
      if (count === 0) ahead.start(sequences, ids);
      if (count + 1 < steps) ahead.start(sequences, undefined);
      return ahead.finish();
    }
    : (): readonly number[] => Array.from(session.step(sequences, ids, policy).best.readInts());
  let [seconds, outside] = [0, 0];
  for (let count = 0; count < steps; count++) {
    const started = performance.now();
    ids = step(count);
    seconds += (performance.now() - started) / 1000;
    if (ids.some((id) => id < 0)) {
      throw new PagesiftError("numeric", "A decode step computed logits that are not finite; check the weights");
    }
    const paused = performance.now();
    await yieldToEventLoop();
    outside += (performance.now() - paused) / 1000;
  }
  // The event loop's turns do not count, unless the device worked meanwhile.
  return { ids, seconds: (seconds + (ahead ? outside : 0)) / steps };
}

function decodeRow(
  bench: Bench,
  arm: ReadingArm,
  turns: readonly TurnTimes[],
  steps: number,
  { denseUs, peakRate }: { denseUs: number; peakRate: number },
): Row {
  const { model, one, session } = bench;
  const { config, kv } = model.loaded;
  const timing = timingOf(turns.map(({ step }) => step));
  const counted = turns[0]?.counted as Counters;
  const { members } = model.loaded.device;
  const weights = model.stepWeightBytes;
  const kvBytes = counted.pagesAttended * session.pool.pageBytes + session.pool.statisticsBytes(arm.policy, counted);
  const bytes = weights === undefined ? undefined : members * weights + kvBytes / steps;
  const rate = bytes === undefined ? undefined : bytes / timing.median_us / 1e3;
  const queued = turns.flatMap((turn) => turn.queued ?? []);
  const rows = steps * one.batch * config.numLayers * config.numKvHeads * members;
  return definedOnly<Row>({
    subject: "generate",
    arm: arm.name,
    model: model.name,
    batch: one.batch,
    decode_tokens: steps,
    depth_tokens: one.depthTokens,
    dtype: kvName(kv),
    page_size: one.pageSize,
    budget_tokens: arm.budgetTokens,
    scorer: arm.scorer,
    ...timing,
    tokens_per_s: one.batch / timing.median_us * 1e6,
    bytes: bytes === undefined ? undefined : Math.round(bytes),
    gb_per_s: rate,
    of_peak: rate === undefined ? undefined : rate * 1e9 / (peakRate * members),
    peak_gb_per_s: members * peakRate / 1e9,
    of_dense: denseUs / timing.median_us,
    queued_us: queued.length === 0 ? undefined : median(queued) * 1e6,
    pages_read: counted.pagesAttended / rows,
    pages_dense: counted.pagesInContext / rows,
  });
}
