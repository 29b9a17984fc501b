/** What families of models need beyond the logits of tests/engine/reference_models_test.ts. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { NormWeights } from "../../engine/norm_weights.ts";
import { roundedTo } from "../../engine/rounding.ts";
import type { Notice } from "../../engine/types.ts";
import { assertSameBits } from "../support/compare.ts";
import {
  collect,
  collectBatch,
  loadedOf,
  loadFixture,
  loadFolder,
  type Outcome,
  promptIds,
} from "../support/fixture_model.ts";
import { header, hostileModel, json, write } from "../support/hostile_model.ts";
import { rounded } from "../support/numbers.ts";

const SAMPLING = { do_sample: true, temperature: 0.9, top_k: 50 };
const MAX_TOKENS = 24;

function infoOf({ notices }: Engine): string {
  return notices.filter(({ level }: Notice) => level === "info").map(({ text }) => text).join("\n");
}

for (const model of ["gemma3-f32", "gemma3-bf16", "granite-f32", "phi3-longrope-f32", "smollm3-f32"]) {
  Deno.test(`${model} gives the same tokens in a batch as alone`, async () => {
    await using engine = await loadFixture(model);
    const prompts = [promptIds(model), promptIds(model, 90)];
    const options = { maxTokens: MAX_TOKENS };
    const alone: Outcome[] = [];
    for (const prompt of prompts) alone.push(await collect(engine.generate(prompt, options)));
    const requests = prompts.map((prompt) => ({ prompt, options }));
    assertEquals(await collectBatch(engine.generateBatch(requests), requests.length), alone);
  });

  Deno.test(`${model} selects pages in the layers without a window only`, async () => {
    await using engine = await loadFixture(model);
    const sparse = { mode: "on", budgetTokens: 64 } as const;
    await collect(engine.generate(promptIds(model), { maxTokens: MAX_TOKENS, sparse }));
    const selecting = engine.policy(sparse).layers.filter(({ kind }) => kind === "sparse").length;
    const windowed = engine.config.slidingWindows.filter((window) => window > 0).length;
    assertEquals(selecting + windowed, engine.config.numLayers);
    const { pagesRead, decodeSteps } = engine.stats;
    const ofSelecting = 8 * selecting * engine.config.numKvHeads * decodeSteps;
    assert(pagesRead >= ofSelecting && (windowed > 0 || pagesRead === ofSelecting), `${pagesRead} pages`);
  });
}

Deno.test("A Gemma that sees images answers as its language model does alone", async () => {
  for (
    const [model, head] of [["language_model.model", "language_model.lm_head"], ["model.language_model", "lm_head"]]
  ) {
    using copy = await hostileModel("gemma3-f32", async (folder) => {
      await header((tensors) => {
        for (const name of Object.keys(tensors).filter((name) => name !== "__metadata__")) {
          tensors[name.replace(/^model\./, `${model}.`).replace(/^lm_head\./, `${head}.`)] = tensors[name];
          delete tensors[name];
        }
      })(folder);
      await json("config.json", (config) => {
        const text_config = { ...config };
        for (const name of Object.keys(config)) delete config[name];
        Object.assign(config, { architectures: ["Gemma3ForConditionalGeneration"], text_config, eos_token_id: 2 });
      })(folder);
    });
    await using whole = await loadFolder(copy.folder);
    await using alone = await loadFixture("gemma3-f32");
    const ids = promptIds("gemma3-f32", 40);
    assertEquals(await whole.logits(ids), await alone.logits(ids));
  }
});

Deno.test("A Gemma with sliding windows says how many layers have them", async () => {
  await using engine = await loadFixture("gemma3-f32");
  assertStringIncludes(infoOf(engine), "7 layers: 6 with a sliding window (32 tokens), 0 dense, 1 selecting pages");
});

Deno.test("A model whose layers all select pages says nothing of them", async () => {
  await using engine = await loadFixture("granite-f32");
  assertEquals(infoOf(engine).includes("layers"), false);
});

Deno.test("A LongRoPE model takes the long factors in its whole context, and says so", async () => {
  await using engine = await loadFixture("phi3-longrope-f32");
  assertStringIncludes(infoOf(engine), "long factors");
});

Deno.test("A LongRoPE model takes the short factors in its original context, and says so", async () => {
  await using whole = await loadFixture("phi3-longrope-f32");
  await using original = await loadFixture("phi3-longrope-f32", { maxContext: 64 });
  assertStringIncludes(infoOf(original), "short factors");
  const ids = promptIds("phi3-longrope-f32", 32);
  const [long, short] = [await whole.logits(ids), await original.logits(ids)];
  assert(long.some((logit, index) => Math.abs(logit - short[index]!) > 0.01));
});

Deno.test("Engine.load reads how a model samples from its generation_config.json", async () => {
  using copy = await hostileModel("llama-f32", write("generation_config.json", JSON.stringify(SAMPLING)));
  await using engine = await loadFolder(copy.folder);
  assertEquals(engine.sampling, { temperature: 0.9, topK: 50 });
  assertStringIncludes(infoOf(engine), "temperature 0.9, top-k 50");
});

Deno.test("Engine.generate samples as the model does where it is not asked to do otherwise", async () => {
  using copy = await hostileModel("llama-f32", write("generation_config.json", JSON.stringify(SAMPLING)));
  await using sampling = await loadFolder(copy.folder);
  await using greedy = await loadFixture("llama-f32");
  const ids = promptIds("llama-f32");
  const drawn = await collect(sampling.generate(ids, { maxTokens: MAX_TOKENS, seed: 7 }));
  const asked = { temperature: 0.9, topK: 50, seed: 7 };
  assertEquals(drawn, await collect(greedy.generate(ids, { maxTokens: MAX_TOKENS, ...asked })));
});

Deno.test("Engine.generate at temperature 0 is greedy whatever the model's own sampling", async () => {
  const file = write("generation_config.json", JSON.stringify({ ...SAMPLING, repetition_penalty: 5 }));
  using copy = await hostileModel("llama-f32", file);
  await using sampling = await loadFolder(copy.folder);
  await using greedy = await loadFixture("llama-f32");
  const ids = promptIds("llama-f32");
  const options = { maxTokens: MAX_TOKENS, temperature: 0 };
  assertEquals(await collect(sampling.generate(ids, options)), await collect(greedy.generate(ids, options)));
});

Deno.test("NormWeights adds 1 to norms of every dtype in f32", async () => {
  await using engine = await loadFixture("gemma3-bf16");
  const { device, config, model: { weights } } = loadedOf(engine);
  const norms = new NormWeights(device, weights, config);
  for (const name of ["layers.0.mlp_post_norm", "layers.5.k_norm", "norm"]) {
    const { buffer, offsetBytes, shape: [width = 0] } = weights.get(`${name}.weight`);
    const bits = new Uint16Array(width);
    buffer.read(bits, offsetBytes);
    const stored = new Float32Array(Uint32Array.from(bits, (half) => half << 16).buffer);
    assertSameBits(norms.get(name).readFloats(), stored.map((weight) => 1 + weight));
  }
});

for (const dtype of ["bf16", "f16", "f32"] as const) {
  Deno.test(`roundedTo ${dtype} rounds as the device stores`, () => {
    const values = Float32Array.of(Math.sqrt(1152), Math.sqrt(640), 1.00390625, 1.01171875, 0.22);
    assertEquals(Array.from(values, (value) => roundedTo(dtype, value)), [...rounded(dtype, values)]);
  });
}
