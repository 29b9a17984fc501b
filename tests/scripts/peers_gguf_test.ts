/** GGUF files for llama.cpp: read back by a reader of their own and compared with the checkpoint. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { openCheckpoint } from "../../engine/folder/checkpoint.ts";
import { readModelConfig } from "../../engine/folder/config.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { ropeFrequencies } from "../../engine/folder/rope.ts";
import { readTensor } from "../../engine/folder/tensor_data.ts";
import { type Converted, convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { writeGguf } from "../../scripts/peers/gguf/file.ts";
import { ggufName, interleaveHalves, type TensorOptions } from "../../scripts/peers/gguf/tensors.ts";
import { fixtureFolder, ModelCopy } from "../support/fixture_model.ts";
import { type ReadGguf, readGguf } from "./peers_gguf_file.ts";

const F32 = 0, BF16 = 30;

/** Converts a fixture and reads the file. */
async function convert(name: string, options: TensorOptions = {}): Promise<{ file: ReadGguf; made: Converted }> {
  const folder = await Deno.makeTempDir();
  try {
    const made = await convertGguf(fixtureFolder(name), join(folder, "model.gguf"), options);
    return { file: readGguf(made.path), made };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a GGUF file begins with its magic and version 3", async () => {
  const { file } = await convert("qwen3-qknorm-f32");
  assertEquals([file.magic, file.version], ["GGUF", 3]);
});

Deno.test("a GGUF file contains the sizes of the model", async () => {
  const { file } = await convert("qwen3-qknorm-f32");
  const config = await readModelConfig(fixtureFolder("qwen3-qknorm-f32"));
  const field = (name: string): unknown => file.metadata.get(`qwen3.${name}`);
  assertEquals(
    ["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "attention.key_length"]
      .map(field),
    [config.numLayers, config.hiddenSize, config.numQueryHeads, config.numKvHeads, config.headDim],
  );
});

Deno.test("a GGUF file has every tensor of the checkpoint, its shape innermost first", async () => {
  const { file } = await convert("qwen3-sharded-bf16");
  const { tensors } = await openCheckpoint(fixtureFolder("qwen3-sharded-bf16"));
  const wanted = [...tensors.values()].map(({ name, shape }) => [ggufName(name), shape.toReversed()]);
  assertEquals([...file.tensors].map(([name, { shape }]) => [name, shape]), wanted);
});

Deno.test("the experts of a layer lie one behind the other in a GGUF file", async () => {
  const { file } = await convert("qwen3-moe-f32");
  const { offset, shape } = file.tensors.get("blk.1.ffn_up_exps.weight") ?? { offset: 0, shape: [] };
  assertEquals(shape, [64, 48, 8]);
  const entry = (await openCheckpoint(fixtureFolder("qwen3-moe-f32"))).tensors.get(
    "model.layers.1.mlp.experts.5.up_proj.weight",
  )!;
  const bytes = (await Deno.readFile(entry.file)).subarray(entry.offsetBytes, entry.offsetBytes + entry.bytes);
  assertEquals(file.bytes.slice(offset + 5 * entry.bytes, offset + 6 * entry.bytes), bytes);
});

Deno.test("matrices keep their bytes in a GGUF file", async () => {
  const { file } = await convert("qwen3-sharded-bf16");
  for (const entry of (await openCheckpoint(fixtureFolder("qwen3-sharded-bf16"))).tensors.values()) {
    if (entry.shape.length === 1) continue;
    const bytes = (await Deno.readFile(entry.file)).subarray(entry.offsetBytes, entry.offsetBytes + entry.bytes);
    const { offset, type } = file.tensors.get(ggufName(entry.name) ?? "") ?? { offset: 0, type: -1 };
    assertEquals([type, file.bytes.slice(offset, offset + entry.bytes)], [BF16, bytes], entry.name);
  }
});

Deno.test("vectors are widened to f32 in a GGUF file", async () => {
  const { file } = await convert("qwen3-sharded-bf16");
  const { tensors } = await openCheckpoint(fixtureFolder("qwen3-sharded-bf16"));
  const source = tensors.get("model.norm.weight");
  const norm = file.tensors.get("output_norm.weight");
  assertEquals(norm?.type, F32);
  const values = new Float32Array(
    file.bytes.slice(norm?.offset, (norm?.offset ?? 0) + 4 * (norm?.shape[0] ?? 0)).buffer,
  );
  assertEquals(values, await readTensor(source?.file ?? "", "model.norm.weight"));
});

Deno.test("a widened GGUF file has all numbers in f32", async () => {
  const { file } = await convert("qwen3-sharded-bf16", { widen: true });
  const folder = fixtureFolder("qwen3-sharded-bf16");
  const entry = (await openCheckpoint(folder)).tensors.get("model.layers.0.mlp.up_proj.weight");
  const values = await readTensor(entry?.file ?? "", entry?.name ?? "");
  const { offset = 0, type } = file.tensors.get("blk.0.ffn_up.weight") ?? {};
  const written = new Float32Array(file.bytes.slice(offset, offset + 4 * values.length).buffer);
  assertEquals([type, written], [F32, values]);
});

Deno.test("data of a GGUF tensor begins at a multiple of 32 bytes", async () => {
  const { file } = await convert("qwen2-bias-f32");
  assertEquals([...file.tensors.values()].filter(({ offset }) => offset % 32 !== 0), []);
});

Deno.test("rows that lie half a head apart become neighbours", () => {
  const rows = interleaveHalves(Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 16, 8);
  assertEquals([...rows], [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]);
});

Deno.test("a Llama's q is reordered in a GGUF file", async () => {
  const { file } = await convert("llama-f32");
  const folder = fixtureFolder("llama-f32");
  const { headDim } = await readModelConfig(folder);
  const name = "model.layers.0.self_attn.q_proj.weight";
  const original = await readTensor(join(folder, "model.safetensors"), name);
  const { offset, shape: [columns = 0] } = file.tensors.get("blk.0.attn_q.weight") ?? { offset: 0, shape: [] };
  const second = new Float32Array(file.bytes.slice(offset + 4 * columns, offset + 8 * columns).buffer);
  assertEquals(second, original.slice(headDim / 2 * columns, (headDim / 2 + 1) * columns));
});

Deno.test("llama3's rotation becomes factors of its frequencies", async () => {
  const { file } = await convert("llama3-rope-bf16");
  const { rope, headDim, maxContext } = await readModelConfig(fixtureFolder("llama3-rope-bf16"));
  const scaled = ropeFrequencies(rope, headDim, maxContext).invFreq;
  const plain = ropeFrequencies({ ...rope, type: "default" }, headDim, maxContext).invFreq;
  const { offset = 0, shape: [count = 0] = [] } = file.tensors.get("rope_freqs.weight") ?? {};
  const factors = new Float32Array(file.bytes.slice(offset, offset + 4 * count).buffer);
  assertEquals(factors, plain.map((frequency, index) => frequency / (scaled[index] ?? 0)));
});

Deno.test("a byte-level tokenizer goes into a GGUF file with its pre-tokenizer's name", async () => {
  const { file } = await convert("qwen3-qknorm-f32");
  const { model } = JSON.parse(await Deno.readTextFile(join(fixtureFolder("qwen3-qknorm-f32"), "tokenizer.json")));
  const tokens = file.metadata.get("tokenizer.ggml.tokens") as string[];
  const wrong = Object.entries(model.vocab).filter(([text, id]) => tokens[id as number] !== text);
  assertEquals([file.metadata.get("tokenizer.ggml.pre"), wrong], ["qwen2", []]);
});

Deno.test("a tokenizer that llama.cpp may read otherwise is left out, and that is said", async () => {
  using copy = ModelCopy.of("qwen3-qknorm-f32");
  const tokenizer = join(copy.folder, "tokenizer.json");
  const json = JSON.parse(await Deno.readTextFile(tokenizer));
  await Deno.writeTextFile(tokenizer, JSON.stringify({ ...json, pre_tokenizer: { type: "Punctuation" } }));
  const made = await convertGguf(copy.folder, join(copy.folder, "model.gguf"));
  assertEquals(readGguf(made.path).metadata.get("tokenizer.ggml.model"), "none");
  assertMatch(made.missing ?? "", /takes token ids only/);
});

for (
  const [name, reason] of [
    ["mistral-sliding-bf16", /sliding windows/],
    ["ministral3-bf16", /Ministral3ForCausalLM/],
  ] as const
) {
  Deno.test(`${name} is refused by the conversion to GGUF`, async () => {
    const error = await assertRejects(() => convertGguf(fixtureFolder(name), "unwritten.gguf"), PagesiftError);
    assertMatch(error.message, reason);
  });
}

Deno.test("a tensor of the wrong length leaves no GGUF file behind", async () => {
  const folder = await Deno.makeTempDir();
  const short = {
    name: "a",
    type: "F32" as const,
    shape: [4],
    write: (put: (piece: Uint8Array) => void) => put(new Uint8Array(8)),
  };
  await assertRejects(
    () => Promise.try(() => writeGguf(join(folder, "a.gguf"), new Map(), [short])),
    Error,
    "gave 8 bytes",
  );
  assertEquals([...Deno.readDirSync(folder)], []);
  await Deno.remove(folder, { recursive: true });
});
