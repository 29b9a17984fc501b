/** Prompts whose tiles choose pages: where they choose, what they share with other prompts, and what the counters say. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { nextChunk } from "../../engine/prefill.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { collect, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";
const ON: SparseOptions = { prefill: "on", prefillBudgetTokens: 64, mode: "off" };
const PROMPT = promptIds(MODEL, 480);

async function fresh(prompt: readonly number[], sparse: SparseOptions): Promise<Outcome> {
  await using engine = await loadFixture(MODEL);
  return await collect(engine.generate(prompt, { maxTokens: 6, sparse }));
}

async function lastLogits(sparse: SparseOptions): Promise<Float32Array> {
  await using engine = await loadFixture(MODEL, { sparse });
  return (await engine.logits(PROMPT)).slice(-engine.config.vocabSize);
}

Deno.test("A prompt reads the budget of pages before each tile and the tile's own, as the counters say", async () => {
  await using engine = await loadFixture(MODEL);
  await collect(engine.generate(PROMPT, { maxTokens: 2, sparse: ON }));
  const { numLayers, numKvHeads } = engine.config;
  // Tiles of 16 pages behind 0, 16, 32 and 48 pages; the last one has 12. The budget is 8 pages.
  const rows = numLayers * numKvHeads;
  const { promptPagesRead, promptPagesDense } = engine.stats;
  assertEquals([promptPagesRead, promptPagesDense], [rows * (16 + 24 + 24 + 20), rows * (16 + 32 + 48 + 60)]);
});

Deno.test("A prompt within the budget and its tile is read densely", async () => {
  await using engine = await loadFixture(MODEL);
  await collect(engine.generate(PROMPT.slice(0, 190), { maxTokens: 2, sparse: { ...ON, prefillBudgetTokens: 128 } }));
  assertEquals(engine.stats.promptPagesDense, 0);
});

Deno.test("A budget below the prompt changes its logits, and a budget of the whole prompt does not", async () => {
  const [dense, small, large] = await Promise.all([
    lastLogits({}),
    lastLogits(ON),
    lastLogits({ ...ON, prefillBudgetTokens: 512 }),
  ]);
  assertEquals(large, dense);
  assertNotEquals(small, dense);
});

Deno.test("Layers with a sliding window and dense layers read prompts as before", () => {
  const { prefill } = resolvePolicy({ ...ON, denseLayers: 1 }, [0, 0, 256, 0]);
  assertEquals(prefill?.layers, [false, true, false, true]);
});

Deno.test("A sparse prompt that begins like an earlier one gives what a fresh engine gives", async () => {
  const [first, second] = [[...PROMPT.slice(0, 450), 7, 9], [...PROMPT, 11, 13]];
  await using engine = await loadFixture(MODEL);
  await collect(engine.generate(first, { maxTokens: 6, sparse: ON }));
  assertEquals(await collect(engine.generate(second, { maxTokens: 6, sparse: ON })), await fresh(second, ON));
  assertEquals(engine.stats.reusedTokens, 384);
});

Deno.test("Dense and sparse prompts share no pages", async () => {
  await using engine = await loadFixture(MODEL);
  await collect(engine.generate(PROMPT, { maxTokens: 6, sparse: ON }));
  const dense: SparseOptions = { ...ON, prefill: "off" };
  assertEquals(await collect(engine.generate(PROMPT, { maxTokens: 6, sparse: dense })), await fresh(PROMPT, dense));
  assertEquals(engine.stats.reusedTokens, 0);
});

Deno.test(
  "A prompt saved on disk by a sparse run is not loaded by a dense one",
  { ignore: DEVICE_KIND === "cuda" },
  async () => {
    const folder = await Deno.makeTempDir();
    try {
      const run = async (sparse: SparseOptions): Promise<number> => {
        await using engine = await loadFixture(MODEL, { promptCache: { folder } });
        await collect(engine.generate(PROMPT, { maxTokens: 2, sparse }));
        return engine.stats.promptCache?.loadedTokens ?? 0;
      };
      assertEquals(await run(ON), 0);
      assertEquals(await run({ ...ON, prefill: "off" }), 0);
      assert(await run(ON) > 0);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);

Deno.test("Chunks of a sparse prompt end with tiles, and the last one is not too short", () => {
  const policy = resolvePolicy(ON, [0]);
  assertEquals(nextChunk(policy, 0, 2000, 512), 512);
  assertEquals(nextChunk(policy, 100, 2000, 512), 412);
  assertEquals(nextChunk(policy, 0, 520, 512), 384);
  assertEquals(nextChunk(policy, 512, 300, 512), 300);
});

Deno.test("A chunk ends where mode auto begins to select", () => {
  const policy = resolvePolicy({ prefill: "auto", prefillBudgetTokens: 64 }, [0]);
  assertEquals(nextChunk(policy, 0, 2000, 512), 256);
});
