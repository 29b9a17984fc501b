/** Requests that run together: each gives what it gives alone, and leaves nothing behind. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { Session } from "../../engine/session.ts";
import { Request } from "../../engine/request.ts";
import type { GenerateRequest, SparseOptions } from "../../engine/types.ts";
import { liveHandles } from "../../ffi/library.ts";
import { collect, collectBatch, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const DENSE: SparseOptions = { mode: "off" };
const SMALL: SparseOptions = { mode: "on", budgetTokens: 32 };

/** Prompts and answers of many lengths: one token, pages and a part, several chunks. */
const LENGTHS = [[1, 3], [220, 9], [7, 1], [8, 12], [9, 5], [600, 4], [40, 2], [64, 7]] as const;

function makeRequests(lengths: readonly (readonly [number, number])[], model = MODEL): GenerateRequest[] {
  return lengths.map(([tokens, maxTokens], index) => ({
    prompt: promptIds(model, tokens + index).slice(index),
    options: { maxTokens },
  }));
}

async function runAlone(
  engine: Engine,
  requests: readonly GenerateRequest[],
  sparse: SparseOptions,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const { prompt, options } of requests) {
    outcomes.push(await collect(engine.generate(prompt, { ...options, sparse })));
  }
  return outcomes;
}

async function assertSameTogether(
  requests: readonly GenerateRequest[],
  sparse: SparseOptions,
  model = MODEL,
): Promise<void> {
  await using engine = await loadFixture(model);
  const together = await collectBatch(engine.generateBatch(requests, { sparse }), requests.length);
  assertEquals(together, await runAlone(engine, requests, sparse));
}

for (const model of [MODEL, "qwen2-yarn-bf16", "mistral-sliding-bf16", "qwen3-moe-f32"]) {
  for (const [label, sparse] of [["dense", DENSE], ["sparse", SMALL]] as const) {
    Deno.test(`Engine.generateBatch gives each ${label} request what it gives alone (${model})`, async () => {
      await assertSameTogether(makeRequests(LENGTHS, model), sparse, model);
    });
  }
}

Deno.test("Engine.generateBatch gives 40 requests, more than decode together, what they give alone", async () => {
  const lengths = Array.from({ length: 40 }, (_, index) => [1 + 13 * index % 70, 1 + 5 * index % 11] as const);
  await assertSameTogether(makeRequests(lengths), SMALL);
});

Deno.test("Engine.generateBatch gives sampled requests what they give alone with their seeds", async () => {
  const requests = makeRequests(LENGTHS).map(({ prompt, options }, seed) => ({
    prompt,
    options: { ...options, seed, temperature: seed % 2 },
  }));
  await assertSameTogether(requests, SMALL);
});

Deno.test("Engine.generateBatch cuts each request at its own stop string", async () => {
  await using engine = await loadFixture(MODEL);
  const prompt = promptIds(MODEL);
  const { text } = await collect(engine.generate(prompt, { maxTokens: 12 }));
  const stop = text.slice(4, 6);
  const requests = [{ prompt, options: { maxTokens: 12 } }, { prompt, options: { maxTokens: 12, stop: [stop] } }];
  const [whole, cut] = await collectBatch(engine.generateBatch(requests), 2);
  assertEquals([whole?.text, whole?.finish], [text, "length"]);
  assertEquals([cut?.text, cut?.finish], [text.slice(0, text.indexOf(stop)), "stop"]);
});

Deno.test("Engine.generateBatch counts the tokens of all requests", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = makeRequests(LENGTHS);
  await collectBatch(engine.generateBatch(requests), requests.length);
  const sum = (which: 0 | 1): number => LENGTHS.reduce((total, lengths) => total + lengths[which], 0);
  const { promptTokens, prefillTokens, reusedTokens, decodeTokens, decodeSteps } = engine.stats;
  assertEquals([promptTokens, prefillTokens + reusedTokens], [sum(0), sum(0)]);
  assertEquals(decodeTokens, sum(1) - LENGTHS.length);
  assertEquals(decodeSteps, 11); // the longest answer's
});

Deno.test("Engine.generateBatch decodes more requests together than the context has tokens", async () => {
  await using engine = await loadFixture(MODEL, { maxContext: 8 });
  const requests = makeRequests(Array.from({ length: 16 }, () => [5, 4]));
  const together = await collectBatch(engine.generateBatch(requests), requests.length);
  assertEquals(together, await runAlone(engine, requests, {}));
});

for (const parallel of [1, 2, 3]) {
  Deno.test(`Engine.generateBatch runs ${parallel} of its requests at the same time, also in a larger cache`, async () => {
    await using engine = await loadFixture(MODEL);
    const requests = makeRequests(Array.from({ length: 8 }, () => [9, 4]));
    await collectBatch(engine.generateBatch(requests), requests.length);
    const running = new Set<number>();
    let most = 0;
    for await (const { index, finish } of engine.generateBatch(requests, { parallel })) {
      most = Math.max(most, running.add(index).size);
      if (finish) running.delete(index);
    }
    assertEquals(most, parallel);
  });
}

Deno.test("Engine.generateBatch decodes 100 requests together and gives each what it gives alone", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = makeRequests(Array.from({ length: 100 }, (_, index) => [1 + index % 30, 3]));
  const together = await collectBatch(engine.generateBatch(requests), requests.length);
  assertEquals(engine.stats.decodeSteps, 2);
  assertEquals(together, await runAlone(engine, requests, {}));
});

for (const parallel of [0, 1.5, 257]) {
  Deno.test(`Engine.generateBatch refuses to run ${parallel} requests at the same time`, async () => {
    await using engine = await loadFixture(MODEL);
    const pieces = engine.generateBatch([{ prompt: [5] }], { parallel });
    assertEquals((await assertRejects(() => pieces.next(), PagesiftError)).kind, "usage");
  });
}

Deno.test("Engine.generateBatch of nothing gives nothing", async () => {
  await using engine = await loadFixture(MODEL);
  assertEquals(await collectBatch(engine.generateBatch([]), 0), []);
});

/** A session with room for `totalTokens`, and requests of 30 and 34 tokens in the cache at most. */
function openRun(engine: Engine, totalTokens: number): { session: Session; requests: Request[] } {
  const policy = resolvePolicy(SMALL, engine.config.slidingWindows);
  const session = engine.openSession(policy, { totalTokens, longestTokens: 34, maxSequences: 2 });
  const { eosTokenIds, maxContext } = engine.config;
  const requests = [26, 30, 26].map((tokens, index) => {
    const stream = engine.tokenizer.stream();
    return new Request(index, promptIds(MODEL, tokens), { maxTokens: 5 }, stream, { eosTokenIds, maxContext });
  });
  return { session, requests };
}

Deno.test("Session.generate lets requests wait until the pool has room for all of their tokens", async () => {
  await using engine = await loadFixture(MODEL);
  const { session, requests } = openRun(engine, 34); // 7 pages: one request of 4 or 5 pages at a time
  const order: number[] = [];
  for await (const { index } of session.generate(requests)) order.push(index);
  assertEquals(order, [0, 1, 2].flatMap((index) => Array<number>(5).fill(index)));
  assertEquals(session.pool.allocator.peakUsed, 5);
});

Deno.test("Session.generate counts a shared page once and gives all pages back at the end", async () => {
  await using engine = await loadFixture(MODEL);
  const { session, requests } = openRun(engine, 68);
  for await (const _piece of session.generate(requests));
  const { numUsed, peakUsed } = session.pool.allocator;
  assertEquals([numUsed, peakUsed], [0, 8]);
});

Deno.test("Session.generate gives all pages back when its consumer leaves half-way", async () => {
  await using engine = await loadFixture(MODEL);
  const { session, requests } = openRun(engine, 68);
  for await (const { index } of session.generate(requests)) if (index === 1) break;
  assertEquals(session.pool.allocator.numUsed, 0);
});

Deno.test("Engine leaves no handle behind after 168 generations of all kinds", async () => {
  const before = liveHandles();
  {
    await using engine = await loadFixture(MODEL);
    const runOnce = async (round: number): Promise<void> => {
      const pageSize = [8, 16][round % 2] ?? 8;
      const scorer = round % 3 === 0 ? "quest" : "unique";
      const pieces = engine.generate(promptIds(MODEL, 1 + round % 84), {
        maxTokens: 1 + round % 4,
        sparse: { mode: "on", budgetTokens: 32, pageSize, scorer },
      });
      if (round % 7 === 0) await pieces.next(), await pieces.return(undefined);
      else await collect(pieces);
    };
    // What a session keeps for its next run (its cache, decoders and their recordings) depends on the runs before: policies, page sizes and
    // the runs that were left come again every 84 rounds, so that by then as much was open as ever is.
    let most = 0;
    for (let round = 0; round < 168; round++) {
      await runOnce(round);
      if (round < 84) most = Math.max(most, liveHandles());
      else assert(liveHandles() <= most, `${liveHandles()} handles after round ${round}, ${most} before`);
    }
  }
  assertEquals([before, liveHandles()], [0, 0]);
});
