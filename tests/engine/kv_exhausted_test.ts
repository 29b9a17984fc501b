/** A pool that runs out of pages in the middle of a batch, since something else draws from it. */
import { assert, assertEquals } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { Request } from "../../engine/request.ts";
import type { FinishReason } from "../../engine/types.ts";
import { loadFixture, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const MAX_TOKENS = 40;
const PROMPTS = [17, 20, 22];

interface Outcome {
  ids: number[];
  finish: FinishReason | undefined;
}

/** Runs three requests; `hold` pages are taken from the pool after the first token of the last one. */
async function run(engine: Engine, hold: number): Promise<{ outcomes: Outcome[]; usedPages: number }> {
  const policy = resolvePolicy({}, engine.config.slidingWindows);
  const need = { totalTokens: 3 * 64, longestTokens: 64, maxSequences: 3 };
  using session = engine.openSession(policy, need);
  const { pool } = session;
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  const requests = PROMPTS.map((count, index) => {
    const ids = promptIds(MODEL, count);
    return new Request(index, ids, { maxTokens: MAX_TOKENS }, engine.tokenizer.stream(), limits);
  });
  const outcomes = PROMPTS.map((): Outcome => ({ ids: [], finish: undefined }));
  const thief = pool.openSequence();
  for await (const { index, id, finish } of session.generate(requests)) {
    if (id >= 0) outcomes[index]!.ids.push(id);
    outcomes[index]!.finish = finish;
    if (index === 2 && thief.length === 0 && hold > 0) thief.extend(hold * pool.shape.pageSize);
  }
  thief.release();
  return { outcomes, usedPages: pool.allocator.numUsed };
}

Deno.test("Generation ends the requests for which the pool has no page, and the others go on and are right", async () => {
  await using engine = await loadFixture(MODEL);
  const whole = await run(engine, 0);
  assertEquals(whole.outcomes.map(({ finish }) => finish), ["length", "length", "length"]);
  // The prompts hold 9 of 27 pages; what is left after 12 were taken serves some of the answers.
  const { outcomes, usedPages } = await run(engine, 12);
  const starved = outcomes.filter(({ finish }) => finish === "kv_exhausted");
  assert(starved.length > 0 && starved.length < 3, JSON.stringify(outcomes.map(({ finish }) => finish)));
  outcomes.forEach(({ ids, finish }, index) => {
    const all = whole.outcomes[index]!.ids;
    assertEquals(ids, all.slice(0, ids.length));
    if (finish === "length") assertEquals(ids.length, MAX_TOKENS);
    else assert(ids.length > 0 && ids.length < MAX_TOKENS);
  });
  assertEquals(usedPages, 0);
});

Deno.test("A request over a given sequence starts when the pool has room for both its tokens and those before", async () => {
  await using engine = await loadFixture(MODEL);
  const need = { totalTokens: 200, longestTokens: 200, maxSequences: 2 };
  using session = engine.openSession(resolvePolicy({}, engine.config.slidingWindows), need);
  const given = session.openSequence();
  await session.prefill(given, promptIds(MODEL, 80));
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  const request = (index: number, tokens: number, sequence?: Sequence): Request => {
    const ids = promptIds(MODEL, tokens);
    return new Request(index, ids, { maxTokens: MAX_TOKENS }, engine.tokenizer.stream(), limits, sequence);
  };
  const ends: unknown[] = [];
  for await (const { finish } of session.generate([request(0, 40), request(1, 40, given)])) {
    if (finish) ends.push(finish);
  }
  assertEquals(ends, ["length", "length"]);
});
