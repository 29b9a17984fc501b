/** Models of the fixtures, converted to GGUF, against the folders that they come from. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { openModelSource } from "../../../engine/source/model_source.ts";
import { openCheckpoint } from "../../../engine/folder/checkpoint.ts";
import { readModelConfig } from "../../../engine/folder/config.ts";
import { convertGguf } from "../../../scripts/peers/convert_gguf.ts";
import { type GgufTensor, writeGguf } from "../../../scripts/peers/gguf/file.ts";
import { modelMetadata } from "../../../scripts/peers/gguf/metadata.ts";
import { planTensors } from "../../../scripts/peers/gguf/tensors.ts";
import { tokenizerMetadata } from "../../../scripts/peers/gguf/tokenizer.ts";
import { fixtureFolder, loadedOf, loadFixture, loadFolder, ModelCopy, promptIds } from "../../support/fixture_model.ts";
import { withFiles } from "../../support/folders.ts";

/** Calls `use` with the GGUF file of a fixture. */
async function withGguf(name: string, use: (file: string) => Promise<void>): Promise<void> {
  await withFiles({}, async (folder) => {
    const { path } = await convertGguf(fixtureFolder(name), join(folder, "model.gguf"));
    await use(path);
  });
}

const EQUAL = ["llama-f32", "llama-linear-rope-f16", "mistral-f32", "qwen2-bias-f32", "qwen2-yarn-bf16"];
const MORE = [
  "qwen3-qknorm-f32",
  "qwen3-sharded-bf16",
  "qwen3-moe-f32",
  "phi3-fused-f32",
  "granite-f32",
  "smollm3-f32",
];

for (const name of [...EQUAL, ...MORE]) {
  Deno.test(`the GGUF file of ${name} gives the logits of its folder, bit for bit`, async () => {
    const ids = promptIds(name, 40);
    await using folder = await loadFixture(name);
    const expected = await folder.logits(ids);
    await withGguf(name, async (file) => {
      await using engine = await loadFolder(file);
      assertEquals(await engine.logits(ids), expected);
    });
  });
}

Deno.test("the GGUF file of a Gemma 3, whose norms are stored whole, gives the logits of its folder, bit for bit", async () => {
  using copy = ModelCopy.of("gemma3-f32");
  copy.configure({ query_pre_attn_scalar: 32 });
  const ids = promptIds("gemma3-f32", 60);
  await using folder = await loadFolder(copy.folder);
  assertEquals(folder.config.headDim, 32);
  const { path } = await convertGguf(copy.folder, join(copy.folder, "model.gguf"));
  await using engine = await loadFolder(path);
  assertEquals(await engine.logits(ids), await folder.logits(ids));
});

Deno.test("the GGUF file of a llama3 rotation, which has its factors in a tensor, gives the logits of its folder", async () => {
  const name = "llama3-rope-bf16";
  const ids = promptIds(name, 100);
  await using folder = await loadFixture(name);
  const expected = await folder.logits(ids);
  await withGguf(name, async (file) => {
    await using engine = await loadFolder(file);
    const logits = await engine.logits(ids);
    const largest = logits.reduce((most, logit, at) => Math.max(most, Math.abs(logit - (expected[at] ?? NaN))), 0);
    assert(largest < 0.02, `differs by ${largest}`);
  });
});

Deno.test("a GGUF file ends its generations at the tokens that its metadata name", async () => {
  await withGguf("qwen2-bias-f32", async (file) => {
    const folder = await openModelSource(fixtureFolder("qwen2-bias-f32"));
    const { generation } = await openModelSource(file);
    assert(generation.eosTokenIds.includes(folder.generation.eosTokenIds[0] ?? -1));
  });
});

Deno.test("a converted model keeps how it was trained to be read sparsely", async () => {
  const file = "sparsity.json";
  const sparsity = { page_size: 16, budget_tokens: 256, scorer: "unique", trained: { method: "fine-tuned" } };
  using copy = ModelCopy.of("qwen3-qknorm-f32");
  await Deno.writeTextFile(join(copy.folder, file), JSON.stringify(sparsity));
  const { path } = await convertGguf(copy.folder, join(copy.folder, "model.gguf"));
  assertEquals((await openModelSource(path)).sparsity, (await openModelSource(copy.folder)).sparsity);
});

Deno.test("rows of one projection in two formats, with a bias, give the logits of rows in one", async () => {
  const name = "qwen2-bias-f32";
  const ids = promptIds(name, 40);
  await using folder = await loadFixture(name);
  const expected = await folder.logits(ids);
  await withFiles({}, async (place) => {
    const path = join(place, "model.gguf");
    await writeWithHalfValues(name, path);
    await using engine = await loadFolder(path);
    assertEquals(loadedOf(engine).model.weights.stack("layers.0.qkv.weight").map(({ dtype }) => dtype), ["f32", "f16"]);
    const logits = await engine.logits(ids);
    const largest = logits.reduce((most, logit, at) => Math.max(most, Math.abs(logit - (expected[at] ?? NaN))), 0);
    assert(largest > 0 && largest < 0.02, `differs by ${largest}`);
  });
});

/** The GGUF file of a fixture with the rows of v in f16. */
async function writeWithHalfValues(name: string, path: string): Promise<void> {
  const folder = fixtureFolder(name);
  const config = await readModelConfig(folder);
  const tensors = planTensors(config, "qwen2", (await openCheckpoint(folder)).tensors).map((tensor): GgufTensor => {
    if (!/attn_v\.weight$/.test(tensor.name)) return tensor;
    const write = (put: (piece: Uint8Array) => void): void =>
      tensor.write((piece) => put(new Uint8Array(Float16Array.from(new Float32Array(piece.slice().buffer)).buffer)));
    return { ...tensor, type: "F16", write };
  });
  const { fields } = await tokenizerMetadata(folder, config);
  writeGguf(path, new Map([...modelMetadata(config, "qwen2", name, "F32"), ...fields]), tensors);
}
