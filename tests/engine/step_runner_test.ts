/** Steps as the runner gives them, recorded where the device records, against the same steps run one by one. */
import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { DecodeBatch } from "../../engine/decode_batch.ts";
import type { Engine } from "../../engine/engine.ts";
import type { LoadedModel } from "../../engine/loaded_model.ts";
import type { Graph } from "../../ffi/device.ts";
import type { KvPool } from "../../engine/pages/kv_pool.ts";
import { countSparseLayers, exceedsBudget, type PagePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { StepRunner } from "../../engine/step_runner.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { fixtureFolder, loadFolder, promptIds } from "../support/fixture_model.ts";

const FIXTURE = "llama-f32";
const EXPERTS = "qwen3-moe-f32";
const STEPS = 5;
const DENSE: SparseOptions = { mode: "off" };

/** Sequences of a model in a pool of their own, ready to decode. */
interface Run {
  loaded: LoadedModel;
  policy: PagePolicy;
  pool: KvPool;
  sequences: Sequence[];
  batch: DecodeBatch;
}

async function start(engine: Engine, prompts: readonly number[][], sparse: SparseOptions): Promise<Run> {
  const policy = engine.policy(sparse);
  const most = Math.max(...prompts.map((ids) => ids.length)) + 20;
  const need = { totalTokens: most * prompts.length, longestTokens: most, maxSequences: prompts.length };
  const session = engine.openSession(policy, need);
  const { loaded, pool } = session;
  const sequences: Sequence[] = [];
  for (const ids of prompts) {
    const sequence = session.openSequence();
    await session.prefill(sequence, ids);
    sequences.push(sequence);
  }
  pool.cache.resetCounters();
  const selects = (lengths: readonly number[]) => lengths.some((length) => exceedsBudget(policy, length));
  return { loaded, policy, pool, sequences, batch: new DecodeBatch(loaded.device, pool, policy, selects) };
}

/** Logits `[B, V]` of a step that nobody records. */
function stepAlone(
  { loaded: { model }, pool, policy, sequences, batch }: Run,
  ids: number[],
): Float32Array<ArrayBuffer> {
  return model.decode(pool, policy, batch.advance(sequences, ids)).readFloats();
}

/** Every step gives the bits of the same step run alone, and counts the same. Returns how often pages were selected. */
async function assertLikeAlone(
  engine: Engine,
  prompts: readonly number[][],
  sparse: SparseOptions,
  steps = STEPS,
): Promise<number> {
  const [alone, run] = [await start(engine, prompts, sparse), await start(engine, prompts, sparse)];
  using runner = new StepRunner(run.loaded.model, run.pool, run.policy);
  const size = [prompts.length, engine.config.vocabSize];
  let ids = prompts.map((_, row) => row + 5);
  for (let step = 0; step < steps; step++) {
    const wanted = stepAlone(alone, ids);
    const { logits, best } = runner.run(run.batch.advance(run.sequences, ids));
    assertSameBits(logits.readFloats(), wanted, size);
    ids = [...best.readInts()];
    const rows = prompts.map((_, row) => wanted.subarray(row * size[1]!, (row + 1) * size[1]!));
    assertEquals(ids, rows.map((row) => row.indexOf(row.reduce((a, b) => Math.max(a, b)))));
  }
  const counters = run.pool.cache.counters();
  assertEquals(counters, alone.pool.cache.counters());
  return counters.selections;
}

const MODELS = {
  "heads of 16 and f32 pages": { prompt: FIXTURE, folder: fixtureFolder(FIXTURE), tokens: 220, budgetTokens: 48 },
  "a mixture of experts": { prompt: EXPERTS, folder: fixtureFolder(EXPERTS), tokens: 220, budgetTokens: 48 },
  "the default model, whose long sequences have groups": {
    prompt: FIXTURE,
    folder: fromFileUrl(new URL("../../models/default", import.meta.url)),
    tokens: 1500,
    budgetTokens: 64,
  },
} as const;

for (const [name, { prompt, folder, tokens, budgetTokens }] of Object.entries(MODELS)) {
  Deno.test(`StepRunner.run gives the bits of single steps and selects at each, for ${name}`, async () => {
    await using engine = await loadFolder(folder);
    const selections = await assertLikeAlone(engine, [promptIds(prompt, tokens)], { mode: "on", budgetTokens });
    assertEquals(selections, STEPS * countSparseLayers(engine.policy()));
  });

  Deno.test(`StepRunner.run gives the bits of single dense steps and never selects, for ${name}`, async () => {
    await using engine = await loadFolder(folder);
    assertEquals(await assertLikeAlone(engine, [promptIds(prompt, tokens)], DENSE), 0);
  });
}

Deno.test("StepRunner.run gives the bits of single steps of a batch", async () => {
  await using engine = await loadFolder(fixtureFolder(FIXTURE));
  const prompts = [220, 30, 101].map((tokens) => promptIds(FIXTURE, tokens));
  await assertLikeAlone(engine, prompts, { mode: "on", budgetTokens: 48 });
});

Deno.test("StepRunner.run goes over to steps that select when a sequence exceeds the budget", async () => {
  await using engine = await loadFolder(fixtureFolder(FIXTURE));
  const selections = await assertLikeAlone(engine, [promptIds(FIXTURE, 220)], { mode: "on", budgetTokens: 224 }, 9);
  assertEquals(selections, 5 * countSparseLayers(engine.policy())); // the fifth token begins page 29
});

Deno.test("StepRunner.run serves a smaller batch when a sequence has ended", async () => {
  await using engine = await loadFolder(fixtureFolder(FIXTURE));
  const prompts = [220, 101].map((tokens) => promptIds(FIXTURE, tokens));
  const [alone, run] = [await start(engine, prompts, DENSE), await start(engine, prompts, DENSE)];
  using runner = new StepRunner(run.loaded.model, run.pool, run.policy);
  for (const ids of [[5, 6], [7, 8], [9, 10], [11], [12], [13]]) {
    for (const { sequences } of [alone, run]) while (sequences.length > ids.length) sequences.shift()?.release();
    const wanted = stepAlone(alone, ids);
    assertSameBits(runner.run(run.batch.advance(run.sequences, ids)).logits.readFloats(), wanted);
  }
});

/** Counts what a model's device records and forgets. Where it cannot record, a recording is the operations, started again at each launch. */
function countRecordings({ model }: LoadedModel): { recorded: number; closed: number } {
  const counts = { recorded: 0, closed: 0 };
  const { device } = model;
  const native = device.record.bind(device);
  const imitation = (work: () => void): Graph => {
    work();
    return { launch: work, close: () => {} } as Graph;
  };
  const record = (work: () => void): Graph => {
    const graph = (device.records ? native : imitation)(work);
    counts.recorded++;
    const { launch, close } = graph;
    return Object.assign(graph, { launch: launch.bind(graph), close: () => (counts.closed++, close.call(graph)) });
  };
  Object.defineProperty(device, "record", { value: record });
  Object.defineProperty(model, "canRecord", { value: true });
  return counts;
}

/** Steps over the first sequences, as many as named, give the bits of steps alone. Returns what was recorded. */
async function recordingsOf(sizes: readonly number[]): Promise<{ recorded: number; closed: number }> {
  await using engine = await loadFolder(fixtureFolder(FIXTURE));
  const prompts = [220, 101, 30, 60, 9].map((tokens) => promptIds(FIXTURE, tokens));
  const [alone, run] = [await start(engine, prompts, DENSE), await start(engine, prompts, DENSE)];
  const counts = countRecordings(run.loaded);
  using runner = new StepRunner(run.loaded.model, run.pool, run.policy);
  for (const [step, size] of sizes.entries()) {
    const ids = prompts.slice(0, size).map((_, row) => 5 + step + row);
    const wanted = stepAlone({ ...alone, sequences: alone.sequences.slice(0, size) }, ids);
    const { logits } = runner.run(run.batch.advance(run.sequences.slice(0, size), ids));
    assertSameBits(logits.readFloats(), wanted, [size, engine.config.vocabSize]);
  }
  return { ...counts };
}

Deno.test("StepRunner.run keeps what it recorded of one size of a batch while another one runs", async () => {
  assertEquals(await recordingsOf([3, 3, 2, 2, 3, 2, 3, 3, 2]), { recorded: 2, closed: 0 });
});

Deno.test("StepRunner.run records a size of a batch at its second step, also after another one", async () => {
  assertEquals(await recordingsOf([3, 2, 3, 2, 3]), { recorded: 2, closed: 0 });
});

Deno.test("StepRunner.run forgets the size of a batch that has not run for longest, and records it again", async () => {
  assertEquals(await recordingsOf([1, 1, 2, 2, 1, 3, 3, 4, 4, 5, 5, 1, 2, 2]), { recorded: 6, closed: 2 });
});

Deno.test("StepRunner.replay repeats the latest step where it was recorded, and says so", async () => {
  await using engine = await loadFolder(fixtureFolder(FIXTURE));
  const run = await start(engine, [promptIds(FIXTURE)], { mode: "on", budgetTokens: 48 });
  using runner = new StepRunner(run.loaded.model, run.pool, run.policy);
  assertEquals(runner.replay(), false);
  for (const id of [5, 6]) runner.run(run.batch.advance(run.sequences, [id]));
  const { logits } = runner.run(run.batch.advance(run.sequences, [7]));
  const wanted = logits.readFloats();
  assertEquals(runner.replay(), DEVICE_KIND === "cuda");
  assertSameBits(logits.readFloats(), wanted);
  runner[Symbol.dispose]();
  assertEquals(runner.replay(), false);
});
