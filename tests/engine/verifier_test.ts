/** Decode steps that are also computed densely: what is found, and that it changes nothing unless a limit is exceeded. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { EngineStats, RunVerification, SparseOptions, Verification, VerifyOptions } from "../../engine/types.ts";
import { loadFixture, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const DENSE: SparseOptions = { mode: "off" };
const SMALL: SparseOptions = { mode: "on", budgetTokens: 32 };
/** Decode steps of a run; the first token comes from the prompt. */
const STEPS = 12;

interface Outcome {
  ids: number[];
  stats: EngineStats;
  verification: Verification | undefined;
}

async function run(
  engine: Engine,
  sparse: SparseOptions,
  verify?: VerifyOptions,
  prompt = promptIds(MODEL),
): Promise<Outcome> {
  const ids: number[] = [];
  let verification: Verification | undefined;
  const options = { maxTokens: STEPS + 1, sparse, ...verify && { verify } };
  for await (const piece of engine.generate(prompt, options)) {
    ids.push(piece.id);
    if (piece.verification) verification = piece.verification;
  }
  return { ids, stats: engine.stats, verification };
}

async function verified(
  engine: Engine,
  verify: VerifyOptions,
  sparse = SMALL,
  prompt = promptIds(MODEL),
): Promise<RunVerification> {
  const { stats: { verification } } = await run(engine, sparse, verify, prompt);
  assert(verification);
  return verification;
}

/** What the native library counted. */
function counted({ selectedSteps, pagesRead, pagesDense, statisticsBytes, decodeSteps }: EngineStats): unknown {
  return { selectedSteps, pagesRead, pagesDense, statisticsBytes, decodeSteps };
}

Deno.test("verification changes no token of the answer", async () => {
  await using engine = await loadFixture(MODEL);
  assertEquals((await run(engine, SMALL, {})).ids, (await run(engine, SMALL)).ids);
});

Deno.test("verification leaves what the stats count of the run as it is", async () => {
  await using engine = await loadFixture(MODEL);
  assertEquals(counted((await run(engine, SMALL, {})).stats), counted((await run(engine, SMALL)).stats));
});

Deno.test("a limit of 0 gives the tokens and the counts of dense decoding", async () => {
  await using engine = await loadFixture(MODEL);
  const [limited, dense] = [await run(engine, SMALL, { limit: 0 }), await run(engine, DENSE)];
  assertEquals(limited.verification?.overLimit, STEPS);
  assertEquals([limited.ids, counted(limited.stats)], [dense.ids, counted(dense.stats)]);
});

Deno.test("a limit of 0 that is checked at the first of 16 steps reads all later ones densely", async () => {
  await using engine = await loadFixture(MODEL);
  const limited = await run(engine, SMALL, { every: 16, limit: 0 });
  assertEquals(limited.ids, (await run(engine, DENSE)).ids);
  assertEquals([limited.verification?.steps, limited.verification?.denseSteps], [1, STEPS]);
});

Deno.test("reading is sparse again after a verified step within the limit", async () => {
  await using engine = await loadFixture(MODEL);
  const { maxKl = 0 } = await verified(engine, {});
  const { overLimit, denseSteps } = await verified(engine, { limit: 0.9 * maxKl });
  assert(overLimit > 0 && denseSteps < STEPS, `${overLimit} over the limit, ${denseSteps} dense`);
});

/** Logits of one step after the prompt. */
async function firstStep(engine: Engine, sparse: SparseOptions, id: number): Promise<Float32Array> {
  const prompt = promptIds(MODEL);
  const longestTokens = prompt.length + 1;
  const need = { totalTokens: longestTokens, longestTokens, maxSequences: 1 };
  using session = engine.openSession(engine.policy(sparse), need);
  const sequence: Sequence = session.openSequence();
  await session.prefill(sequence, prompt);
  return session.step([sequence], [id]).logits.readFloats();
}

Deno.test("the divergence of the first step is that of separate dense and sparse runs", async () => {
  await using engine = await loadFixture(MODEL);
  const { ids: [id = 0], stats: { verification } } = await run(engine, SMALL, { every: STEPS });
  const probabilities = (logits: Float32Array): number[] => {
    const powers = [...logits].map((logit) => Math.exp(logit));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
  };
  const p = probabilities(await firstStep(engine, DENSE, id));
  const q = probabilities(await firstStep(engine, SMALL, id));
  const kl = p.reduce((sum, share, index) => sum + share * Math.log(share / (q[index] ?? 0)), 0);
  assert(kl > 0);
  assertAlmostEquals(verification?.maxKl ?? 0, kl, 1e-6);
});

Deno.test("the first different step is the first whose most likely token differs", async () => {
  await using engine = await loadFixture(MODEL);
  const [sparse, dense] = [await run(engine, SMALL, {}), await run(engine, DENSE)];
  const first = sparse.ids.findIndex((id, index) => id !== dense.ids[index]);
  assertEquals(sparse.verification?.firstDifference, first < 0 ? undefined : first);
});

Deno.test("every 5th step is verified, beginning with the first", async () => {
  await using engine = await loadFixture(MODEL);
  assertEquals((await verified(engine, { every: 5 })).steps, 3); // 1, 6 and 11
});

Deno.test("steps that read all pages anyway are not verified", async () => {
  await using engine = await loadFixture(MODEL);
  const { steps, skipped, meanKl } = await verified(engine, {}, { mode: "on", budgetTokens: 224 });
  assertEquals([steps, skipped], [STEPS - 4, 4]); // 221 to 224 tokens fit the budget
  assert(meanKl !== undefined);
});

Deno.test("each request of a batch has its own figures, and the stats sum them", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = [220, 10].map((tokens) => ({
    prompt: promptIds(MODEL, tokens),
    options: { maxTokens: STEPS + 1 },
  }));
  const found: (Verification | undefined)[] = [];
  for await (const { index, verification } of engine.generateBatch(requests, { sparse: SMALL, verify: {} })) {
    if (verification) found[index] = verification;
  }
  assertEquals(found.map((one) => [one?.steps, one?.skipped]), [[STEPS, 0], [0, STEPS]]);
  assertEquals([engine.stats.verification?.steps, engine.stats.verification?.skipped], [STEPS, STEPS]);
});

Deno.test("a request that reads all pages anyway has no step that the limit of another made dense", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = [220, 10].map((tokens) => ({
    prompt: promptIds(MODEL, tokens),
    options: { maxTokens: STEPS + 1 },
  }));
  for await (const _piece of engine.generateBatch(requests, { sparse: SMALL, verify: { limit: 0 } }));
  assertEquals(engine.stats.verification?.denseSteps, STEPS);
});

Deno.test("a batch reads densely while one of its requests exceeds the limit", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = [220, 130].map((tokens) => ({
    prompt: promptIds(MODEL, tokens),
    options: { maxTokens: STEPS + 1 },
  }));
  const idsOf = async (sparse: SparseOptions, verify?: VerifyOptions): Promise<number[]> => {
    const ids: number[] = [];
    const options = { sparse, ...verify && { verify } };
    for await (const { id } of engine.generateBatch(requests, options)) ids.push(id);
    return ids;
  };
  assertEquals(await idsOf(SMALL, { limit: 0 }), await idsOf(DENSE));
});

for (const verify of [{ every: 0 }, { every: 1.5 }, { limit: -1 }, { limit: NaN }]) {
  Deno.test(`verification refuses ${JSON.stringify(verify)}`, async () => {
    await using engine = await loadFixture(MODEL);
    const error = await assertRejects(() => run(engine, SMALL, verify), PagesiftError);
    assertEquals(error.kind, "usage");
  });
}

Deno.test("verification refuses a run that never selects", async () => {
  await using engine = await loadFixture(MODEL);
  const error = await assertRejects(() => run(engine, DENSE, {}), PagesiftError, "nothing to verify");
  assertEquals(error.kind, "usage");
});
