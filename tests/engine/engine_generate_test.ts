/** Which pages a generation reads, by the native counters, and what it says then. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { PAGE_SIZES, SCORERS } from "../../engine/pages/page_policy.ts";
import { pagesFor, pagesTaken } from "../../engine/pages/page_table.ts";
import type { EngineStats, GenerateOptions, SparseOptions } from "../../engine/types.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { collect, loadedOf, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const PROMPT = promptIds(MODEL);
const MAX_TOKENS = 20;
/** The first token comes out of the prefill. */
const STEPS = MAX_TOKENS - 1;
/** 8 of the prompt's 28 pages. */
const SMALL: SparseOptions = { mode: "on", budgetTokens: 64 };
const DENSE: SparseOptions = { mode: "off" };

interface Run extends Outcome {
  stats: EngineStats;
}

async function run(engine: Engine, prompt: readonly number[], options: GenerateOptions): Promise<Run> {
  return { ...await collect(engine.generate(prompt, { maxTokens: MAX_TOKENS, ...options })), stats: engine.stats };
}

/** One generation on an engine of its own. */
async function runFixture(options: GenerateOptions, model = MODEL): Promise<Run> {
  await using engine = await loadFixture(model);
  return await run(engine, promptIds(model), options);
}

/** Layers and KV heads of the fixture. */
const [LAYERS, KV_HEADS] = [3, 2];

/** Pages in the context summed over the decode steps of one layer and KV head. */
function contextPages(pageSize: number): number {
  return Array.from({ length: STEPS }, (_, step) => pagesFor(PROMPT.length + step + 1, pageSize))
    .reduce((sum, pages) => sum + pages, 0);
}

Deno.test("Engine.generate with a budget that covers everything selects nothing", async () => {
  const { stats } = await runFixture({ sparse: { mode: "on", budgetTokens: 240 } });
  assertEquals([stats.decodeSteps, stats.selectedSteps, stats.statisticsBytes], [STEPS, 0, 0]);
  assertEquals([stats.pagesRead, stats.pagesDense], Array(2).fill(contextPages(8) * LAYERS * KV_HEADS));
});

for (const [what, budgetTokens] of [["just covers", 240], ["far exceeds", 2 ** 50]] as const) {
  Deno.test(`Engine.generate with a budget that ${what} everything gives the dense text`, async () => {
    await using engine = await loadFixture(MODEL);
    const dense = await run(engine, PROMPT, { sparse: DENSE });
    const { ids, text } = await run(engine, PROMPT, { sparse: { budgetTokens, mode: "on" } });
    assertEquals([ids, text], [dense.ids, dense.text]);
  });
}

Deno.test("Engine.generate selects at every step once the context exceeds the budget", async () => {
  const { stats } = await runFixture({ sparse: SMALL });
  assertEquals([stats.decodeSteps, stats.selectedSteps], [STEPS, STEPS]);
});

Deno.test("Engine.generate begins to select with the first page too many", async () => {
  const { stats } = await runFixture({ sparse: { mode: "on", budgetTokens: 224 } }); // positions 220 to 223 fill page 28
  assertEquals([stats.decodeSteps, stats.selectedSteps], [STEPS, STEPS - 4]);
});

Deno.test("Engine.generate reads the budget's pages in every layer and KV head, and no more", async () => {
  const { stats } = await runFixture({ sparse: SMALL });
  assertEquals(stats.pagesRead, 8 * LAYERS * KV_HEADS * STEPS);
  assertEquals(stats.pagesDense, contextPages(8) * LAYERS * KV_HEADS);
});

Deno.test("Engine.generate counts the bytes of the pages that it read and scored", async () => {
  const { stats } = await runFixture({ sparse: SMALL });
  const pageBytes = 2 * 8 * 16 * 4;
  assertEquals([stats.bytesRead, stats.bytesDense], [stats.pagesRead * pageBytes, stats.pagesDense * pageBytes]);
  assertEquals(stats.statisticsBytes, stats.pagesDense * 2 * 16 * 4);
});

for (const denseLayers of [1, 3]) {
  Deno.test(`Engine.generate reads all pages in ${denseLayers} dense layers`, async () => {
    const { stats } = await runFixture({ sparse: { ...SMALL, denseLayers } });
    const selected = 8 * STEPS * (LAYERS - denseLayers);
    assertEquals(stats.pagesRead, (contextPages(8) * denseLayers + selected) * KV_HEADS);
    assertEquals(stats.selectedSteps, denseLayers === LAYERS ? 0 : STEPS);
  });
}

Deno.test("Engine.generate never selects in layers with a window, and reads the window's pages", async () => {
  const { stats } = await runFixture({ sparse: { ...SMALL, mode: "on" } }, "mistral-sliding-bf16");
  const windowPages = Array.from({ length: stats.decodeSteps }, (_, step) => {
    const length = PROMPT.length + step + 1;
    return pagesFor(length, 8) - Math.floor((length - 48) / 8);
  }).reduce((sum, pages) => sum + pages, 0);
  assertEquals([stats.selectedSteps, stats.pagesRead], [0, windowPages * LAYERS * KV_HEADS]);
});

for (const scorer of SCORERS) {
  Deno.test(`Engine.generate selects with the scorer ${scorer}`, async () => {
    const { ids, stats } = await runFixture({ sparse: { ...SMALL, scorer } });
    assertEquals([ids.length, stats.selectedSteps, stats.pagesRead], [
      MAX_TOKENS,
      STEPS,
      8 * LAYERS * KV_HEADS * STEPS,
    ]);
  });
}

Deno.test("Engine.generate takes more sink and recent pages than the budget holds", async () => {
  const { stats } = await runFixture({ sparse: { ...SMALL, sinkPages: 2 ** 40, recentPages: 2 ** 40 } });
  assertEquals(stats.pagesRead, 8 * LAYERS * KV_HEADS * STEPS);
});

Deno.test("Engine.generate gives the same dense text with every page size", async () => {
  await using engine = await loadFixture(MODEL);
  const runs: Run[] = [];
  for (const pageSize of PAGE_SIZES) runs.push(await run(engine, PROMPT, { sparse: { ...DENSE, pageSize } }));
  for (const { ids } of runs) assertEquals(ids, runs[0]?.ids);
});

for (const sparse of [DENSE, SMALL]) {
  const label = sparse === DENSE ? "dense" : "sparse";
  const name = `Engine.generate gives the same ${label} text with one thread and with two`;
  Deno.test(name, { ignore: DEVICE_KIND !== "cpu" }, async () => {
    await using one = await loadFixture(MODEL, { threads: 1 });
    await using two = await loadFixture(MODEL, { threads: 2 });
    assertEquals((await run(one, PROMPT, { sparse })).ids, (await run(two, PROMPT, { sparse })).ids);
  });
}

Deno.test("Engine.generate gives the same text again with the same seed, and another with another", async () => {
  await using engine = await loadFixture(MODEL);
  const [first, again, other] = [
    await run(engine, PROMPT, { temperature: 1, seed: 7 }),
    await run(engine, PROMPT, { temperature: 1, seed: 7 }),
    await run(engine, PROMPT, { temperature: 1, seed: 8 }),
  ];
  assertEquals([again.ids, again.text], [first.ids, first.text]);
  assertNotEquals(other.text, first.text);
});

Deno.test("Engine.generate follows the logits step by step where the budget covers the context", async () => {
  await using engine = await loadFixture(MODEL);
  const { ids } = await run(engine, PROMPT, { sparse: { mode: "on", budgetTokens: 4096 } });
  const { vocabSize } = engine.config;
  const logits = await engine.logits([...PROMPT, ...ids]);
  const best = ids.map((_, index) => {
    const row = logits.subarray((PROMPT.length - 1 + index) * vocabSize, (PROMPT.length + index) * vocabSize);
    return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
  });
  assertEquals(ids, best);
});

Deno.test("Engine.generate with a small budget says something else than dense attention", async () => {
  const [dense, sparse] = [
    await runFixture({ sparse: DENSE }),
    await runFixture({ sparse: { mode: "on", budgetTokens: 24 } }),
  ];
  assertNotEquals(sparse.ids, dense.ids);
});

Deno.test("Engine.generate takes text as well as its ids", async () => {
  await using engine = await loadFixture(MODEL);
  const text = "The old prince said nothing.";
  const [fromText, fromIds] = [
    await collect(engine.generate(text, { maxTokens: 5 })),
    await collect(engine.generate(engine.tokenizer.encode(text), { maxTokens: 5 })),
  ];
  assertEquals(fromText.ids, fromIds.ids);
});

Deno.test("Engine.generate gives pieces that join to the decoded text", async () => {
  await using engine = await loadFixture(MODEL);
  const { ids, text } = await run(engine, PROMPT, {});
  assertEquals(text, engine.tokenizer.decode(ids));
});

Deno.test("Engine.generate of one token runs no decode step", async () => {
  const { ids, finish, stats } = await runFixture({ maxTokens: 1 });
  assertEquals([ids.length, finish, stats.decodeSteps, stats.pagesRead], [1, "length", 0, 0]);
});

Deno.test("Engine.generate continues a prompt of one token", async () => {
  await using engine = await loadFixture(MODEL);
  const { ids } = await run(engine, [1], { sparse: { mode: "on", budgetTokens: 8 } });
  assert(ids.length > 1);
});

Deno.test("Engine.generate ends at the context's end with the reason context", async () => {
  await using engine = await loadFixture(MODEL, { maxContext: PROMPT.length + 4 });
  const { ids, finish } = await run(engine, PROMPT, {});
  assertEquals([ids.length, finish, engine.stats.contextTokens], [5, "context", PROMPT.length + 4]);
});

Deno.test("Engine.generate gives one token for a prompt that fills the context", async () => {
  await using engine = await loadFixture(MODEL, { maxContext: PROMPT.length });
  const { ids, finish } = await run(engine, PROMPT, {});
  assertEquals([ids.length, finish], [1, "context"]);
});

Deno.test("Engine.generate takes prompts of several chunks", async () => {
  await using engine = await loadFixture(MODEL);
  const chunk = loadedOf(engine).model.activations.maxTokens;
  const { vocabSize, maxContext } = engine.config;
  const prompt = promptIds(MODEL, Math.min(2 * chunk + 76, maxContext - MAX_TOKENS));
  const wanted = [...[chunk, 2 * chunk].filter((tokens) => tokens < prompt.length), prompt.length];
  const seen: number[] = [];
  const { ids } = await run(engine, prompt, { sparse: DENSE, onPrefill: ({ doneTokens }) => seen.push(doneTokens) });
  const last = (await engine.logits(prompt)).slice(-vocabSize);
  assertEquals([seen, ids[0]], [wanted, last.indexOf(last.reduce((a, b) => Math.max(a, b)))]);
});

Deno.test("Engine.stats tells tokens, context and peak memory of the latest run", async () => {
  await using engine = await loadFixture(MODEL);
  const { stats } = await run(engine, PROMPT, { sparse: SMALL });
  assertEquals([stats.promptTokens, stats.prefillTokens, stats.decodeTokens], [PROMPT.length, PROMPT.length, STEPS]);
  assertEquals([stats.contextTokens, stats.finishReason], [PROMPT.length + STEPS, "length"]);
  const pages = pagesTaken(PROMPT.length + STEPS, 8, engine.policy(SMALL).groupPages);
  assertEquals(stats.peakKvBytes, pages * 2 * 8 * 16 * 4 * LAYERS * KV_HEADS);
});

Deno.test("Engine.generate ends at a special token that is a stop string", async () => {
  await using engine = await loadFixture("qwen3-qknorm-f32");
  const { tokenizer } = engine;
  const prompt = promptIds("qwen3-qknorm-f32");
  const whole = await collect(engine.generate(prompt, { maxTokens: 4 }));
  // Any token that the model gives serves as a special one: the tokenizer says which are.
  const id = whole.ids[2]!;
  const specialId = tokenizer.specialId.bind(tokenizer);
  tokenizer.specialId = (text) => text === "<stop>" ? id : specialId(text);
  const { ids, finish, text } = await collect(engine.generate(prompt, { maxTokens: 4, stop: ["<stop>"] }));
  assertEquals([ids, finish], [whole.ids.slice(0, 3), "stop"]);
  assertEquals(text, tokenizer.decode(ids.slice(0, 2)));
});

Deno.test("Engine.stats tells that mode auto selects at no length that fits the budget", async () => {
  const { stats } = await runFixture({ sparse: { mode: "auto", budgetTokens: 1024 * 1024 } });
  assertEquals([stats.selectsFromTokens, stats.selectedSteps], [null, 0]);
});

Deno.test("Engine.stats tells no length from which on to select in mode on", async () => {
  const { stats } = await runFixture({ sparse: SMALL });
  assertEquals(stats.selectsFromTokens, undefined);
});
