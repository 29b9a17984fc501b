/** Weights that are quantised while they load, and models whose formats are mixed. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { PagesiftError } from "../../engine/errors.ts";
import { QUANTIZED_FORMATS } from "../../engine/folder/weight_formats.ts";
import { loadedOf, loadFixture, loadFolder, ModelCopy, promptIds } from "../support/fixture_model.ts";

/** Largest mean difference of the logits; a bit more halves it. */
const MEAN_DIFFERENCE = { q8_0: 0.04, q5_1: 0.2, q5_0: 0.25, q4_1: 0.4, q4_0: 0.4 } as const;

async function logitsOf(
  name: string,
  ids: readonly number[],
  weights?: typeof QUANTIZED_FORMATS[number],
): Promise<Float32Array> {
  await using engine = await loadFixture(name, weights && { weights });
  return await engine.logits(ids);
}

for (const name of ["llama-f32", "qwen3-moe-f32"]) {
  for (const format of QUANTIZED_FORMATS) {
    Deno.test(`${name} quantised to ${format} gives nearly the logits of the whole model`, async () => {
      const ids = promptIds(name, 40);
      const [whole, quantised] = [await logitsOf(name, ids), await logitsOf(name, ids, format)];
      const sum = whole.reduce((total, logit, at) => total + Math.abs(logit - (quantised[at] ?? NaN)), 0);
      const mean = sum / whole.length;
      assert(mean > 0 && mean < MEAN_DIFFERENCE[format], `differs by ${mean}`);
    });
  }
}

Deno.test("a quantised model takes as many bytes as its blocks", async () => {
  await using whole = await loadFixture("llama-f32");
  await using quantised = await loadFixture("llama-f32", { weights: "q8_0" });
  const [all, blocks] = [whole, quantised].map((engine) => loadedOf(engine).facts.weightBytes);
  const share = (blocks ?? NaN) / (all ?? NaN);
  assert(share > 34 / 128 && share < 0.3, `${share} of the bytes`);
});

Deno.test("a quantised model keeps keys and values in bf16", async () => {
  await using engine = await loadFixture("llama-f32", { weights: "q8_0" });
  assertEquals(engine.kvType, "bf16");
});

Deno.test("numbers that cannot be quantised are an error that names the tensor", async () => {
  using copy = ModelCopy.of("llama-f32");
  await copy.poke("model.layers.1.mlp.up_proj.weight", 5, NaN);
  const error = await assertRejects(() => loadFolder(copy.folder, { weights: "q4_0" }), PagesiftError);
  assertEquals([error.kind, error.message.includes("model.layers.1.mlp.up_proj.weight")], ["model", true]);
});
