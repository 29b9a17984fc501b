/** Steps that start before the token before is read give what steps one after the other give, and nothing of a dropped one remains. */
import { assertEquals } from "@std/assert";
import { AheadSteps } from "../../engine/ahead_steps.ts";
import { Decoder } from "../../engine/decoder.ts";
import type { Engine } from "../../engine/engine.ts";
import type { Session } from "../../engine/session.ts";
import type { GenerateOptions } from "../../engine/types.ts";
import { collect, loadedOf, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const PROMPT = promptIds(MODEL, 60);
const SMALL = { mode: "on", budgetTokens: 24 } as const;

/** Lets steps run ahead, or not, on any device. */
function runAhead(engine: Engine, ahead: boolean): void {
  Object.defineProperty(loadedOf(engine).model, "canRunAhead", { get: () => ahead, configurable: true });
}

async function both(
  options: GenerateOptions,
  use = (engine: Engine) => collect(engine.generate(PROMPT, options)),
): Promise<
  [Outcome, Outcome]
> {
  await using engine = await loadFixture(MODEL);
  const outcomes: Outcome[] = [];
  for (const ahead of [true, false]) {
    runAhead(engine, ahead);
    outcomes.push(await use(engine));
  }
  return outcomes as [Outcome, Outcome];
}

const CASES: Record<string, GenerateOptions> = {
  "the most likely tokens, dense": { maxTokens: 24, sparse: { mode: "off" } },
  "the most likely tokens, from a selection": { maxTokens: 24, sparse: SMALL },
  "drawn tokens": { maxTokens: 24, temperature: 1, topK: 20, seed: 5 },
  "drawn tokens with a penalty, which needs the host": { maxTokens: 24, temperature: 1, repeatPenalty: 1.2, seed: 5 },
  "one token": { maxTokens: 1 },
  "two tokens": { maxTokens: 2 },
};

for (const [name, options] of Object.entries(CASES)) {
  Deno.test(`Engine.generate running ahead gives the same answer: ${name}`, async () => {
    const [ahead, one] = await both(options);
    assertEquals(ahead, one);
  });
}

Deno.test("Engine.generate running ahead gives the same answer where a stop string ends it", async () => {
  const [{ text }] = await both({ maxTokens: 24, sparse: SMALL });
  const [ahead, one] = await both({ maxTokens: 24, sparse: SMALL, stop: [text.slice(8, 12)] });
  assertEquals(ahead, one);
  assertEquals(ahead.finish, "stop");
});

Deno.test("Engine.generate running ahead leaves the cache as it was, for the next prompt that begins alike", async () => {
  const [ahead, one] = await both({}, async (engine) => {
    await collect(engine.generate(PROMPT, { maxTokens: 9, sparse: SMALL }));
    return await collect(engine.generate([...PROMPT, 7, 8, 9], { maxTokens: 9, sparse: SMALL }));
  });
  assertEquals(ahead, one);
});

Deno.test("A reader that leaves an answer that runs ahead frees its pages", async () => {
  await using engine = await loadFixture(MODEL);
  runAhead(engine, true);
  const wanted = await collect(engine.generate(PROMPT, { maxTokens: 12 }));
  for await (const { id } of engine.generate(PROMPT, { maxTokens: 12 })) {
    if (id === wanted.ids[4]) break;
  }
  assertEquals(await collect(engine.generate(PROMPT, { maxTokens: 12 })), wanted);
});

Deno.test("An answer that runs ahead ends when its signal aborts", async () => {
  await using engine = await loadFixture(MODEL);
  runAhead(engine, true);
  const controller = new AbortController();
  const pieces = [];
  for await (const piece of engine.generate(PROMPT, { maxTokens: 200, signal: controller.signal })) {
    pieces.push(piece);
    if (pieces.length === 5) controller.abort();
  }
  assertEquals(pieces.at(-1)?.finish, "aborted");
});

Deno.test("The second of two answers of a batch runs ahead alone, once the first has ended", async () => {
  await using engine = await loadFixture(MODEL);
  const outcomes = [];
  for (const ahead of [true, false]) {
    runAhead(engine, ahead);
    const ids: number[][] = [[], []];
    const requests = [4, 20].map((maxTokens) => ({ prompt: PROMPT, options: { maxTokens } }));
    for await (const { index, id } of engine.generateBatch(requests, { sparse: SMALL })) ids[index]?.push(id);
    outcomes.push(ids);
  }
  assertEquals(outcomes[0], outcomes[1]);
});

function openSession(engine: Engine): Session {
  return engine.openSession(engine.policy(SMALL), { totalTokens: 200, longestTokens: 100, maxSequences: 2 });
}

Deno.test("AheadSteps of two sequences give the tokens of single steps", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const read = async (): Promise<number[][]> => {
    const sequences = [session.openSequence(), session.openSequence()];
    await session.prefill(sequences[0]!, PROMPT);
    await session.prefill(sequences[1]!, PROMPT.slice(0, 31));
    const found: number[][] = [];
    using decoder = new Decoder(session.loaded.model, session.pool, session.policy);
    const steps = new AheadSteps(decoder);
    steps.start(sequences, [5, 6]);
    for (let count = 0; count < 9; count++) {
      steps.start(sequences, undefined);
      found.push(steps.finish());
    }
    steps.drop();
    for (const sequence of sequences) sequence.release();
    return found;
  };
  const sequences = [session.openSequence(), session.openSequence()];
  await session.prefill(sequences[0]!, PROMPT);
  await session.prefill(sequences[1]!, PROMPT.slice(0, 31));
  const wanted: number[][] = [];
  let ids = [5, 6];
  for (let count = 0; count < 9; count++) {
    ids = Array.from(session.step(sequences, ids).best.readInts());
    wanted.push(ids);
  }
  for (const sequence of sequences) sequence.release();
  assertEquals(await read(), wanted);
});

Deno.test("AheadSteps.drop takes the tokens of steps under way off again, and the next step is as before", async () => {
  await using engine = await loadFixture(MODEL);
  using session = openSession(engine);
  const sequence = session.openSequence();
  await session.prefill(sequence, PROMPT);
  const wanted = session.step([sequence], [5]).logits.readFloats();
  session.truncate(sequence, PROMPT.length);
  using decoder = new Decoder(session.loaded.model, session.pool, session.policy);
  const steps = new AheadSteps(decoder);
  steps.start([sequence], [9]);
  steps.start([sequence], undefined);
  assertEquals([sequence.length, steps.pending], [PROMPT.length + 2, 2]);
  steps.drop();
  assertEquals([sequence.length, steps.pending], [PROMPT.length, 0]);
  assertEquals(session.step([sequence], [5]).logits.readFloats(), wanted);
});
