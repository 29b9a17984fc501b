/** Metadata of GGUF files as a model's config, and tensors by their names and places. */
import { assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import type { ModelConfig } from "../../../engine/folder/config.ts";
import { ropeFrequencies } from "../../../engine/folder/rope.ts";
import { type ModelSource, openModelSource } from "../../../engine/source/model_source.ts";
import { planSource } from "../../../engine/source/plan_source.ts";
import { withFiles } from "../../support/folders.ts";
import { ggufBytes, type TestTensor, type TestValue } from "../../support/gguf_bytes.ts";

type Fields = Record<string, TestValue | undefined>;

/** Metadata behind the architecture's name. */
const MODEL: Fields = {
  block_count: { u32: 1 },
  context_length: { u32: 256 },
  embedding_length: { u32: 32 },
  feed_forward_length: { u32: 64 },
  "attention.head_count": { u32: 2 },
  "attention.head_count_kv": { u32: 1 },
  "attention.layer_norm_rms_epsilon": { f32: 1e-5 },
};
const TOKENS = ["<unk>", "<s>", "</s>", "a"];
const LAYER: readonly (readonly [name: string, ...sizes: number[]])[] = [
  ["attn_norm", 32],
  ["attn_q", 32, 32],
  ["attn_k", 32, 16],
  ["attn_v", 32, 16],
  ["attn_output", 32, 32],
  ["ffn_norm", 32],
  ["ffn_gate", 32, 64],
  ["ffn_up", 32, 64],
  ["ffn_down", 64, 32],
];
const TENSORS: readonly TestTensor[] = [
  { name: "token_embd.weight", sizes: [32, 4] },
  { name: "output_norm.weight", sizes: [32] },
  ...LAYER.map(([name, ...sizes]) => ({ name: `blk.0.${name}.weight`, sizes })),
];

interface Model {
  /** Fields under their whole names. */
  general?: [string, TestValue][];
  architecture?: string;
  fields?: Fields;
  tensors?: readonly TestTensor[];
}

function modelBytes({ architecture = "llama", general = [], fields = {}, tensors = TENSORS }: Model): Uint8Array {
  const all = { ...MODEL, ...fields };
  const own = Object.entries(all).flatMap(([name, value]): [string, TestValue][] =>
    value === undefined ? [] : [[`${architecture}.${name}`, value]]
  );
  return ggufBytes({
    fields: [
      ["general.architecture", { text: architecture }],
      ...general,
      ...own,
      ["tokenizer.ggml.model", { text: "gpt2" }],
      ["tokenizer.ggml.pre", { text: "gpt-2" }],
      ["tokenizer.ggml.tokens", { texts: TOKENS }],
      ["tokenizer.ggml.merges", { texts: [] }],
      ["tokenizer.ggml.eos_token_id", { u32: 2 }],
    ],
    tensors,
  });
}

async function open(model: Model, use: (source: ModelSource) => void | Promise<void>): Promise<void> {
  await withFiles({ "m.gguf": modelBytes(model) }, async (folder) => {
    await use(await openModelSource(join(folder, "m.gguf")));
  });
}

async function configOf(model: Model): Promise<ModelConfig> {
  let config: ModelConfig | undefined;
  await open(model, (source) => {
    config = source.config;
  });
  return config!;
}

async function assertRefused(model: Model, ...parts: string[]): Promise<void> {
  const error = await assertRejects(
    () => open(model, async (source) => void await planSource(source, source.config)),
    PagesiftError,
  );
  assertEquals(error.kind, "model", error.message);
  for (const part of parts) assertStringIncludes(error.message, part);
}

Deno.test("a GGUF file's metadata give the sizes of the model", async () => {
  const config = await configOf({});
  assertEquals(
    [config.architecture, config.vocabSize, config.hiddenSize, config.intermediateSize, config.numLayers],
    ["LlamaForCausalLM", 4, 32, 64, 1],
  );
  assertEquals([config.numQueryHeads, config.numKvHeads, config.headDim, config.maxContext], [2, 1, 16, 256]);
});

Deno.test("a GGUF file without an output projection ties it to the embedding", async () => {
  const output = { name: "output.weight", sizes: [32, 4] };
  assertEquals((await configOf({})).tieWordEmbeddings, true);
  assertEquals((await configOf({ tensors: [...TENSORS, output] })).tieWordEmbeddings, false);
});

Deno.test("a number for every layer counts where all are equal", async () => {
  const fields = { block_count: { u32: 1 }, "attention.head_count_kv": { i32s: [1] } };
  assertEquals((await configOf({ fields })).numKvHeads, 1);
});

Deno.test("a GGUF file's sampling values are the model's defaults", async () => {
  const general: [string, TestValue][] = [["general.sampling.temp", { f32: 0.5 }], ["general.sampling.top_k", {
    i32: 20,
  }]];
  await open({ general }, ({ generation }) => assertEquals(generation.sampling, { temperature: 0.5, topK: 20 }));
  await open({}, ({ generation }) => assertEquals(generation.sampling, {}));
});

Deno.test("LongRoPE takes its factors from tensors of the file", async () => {
  const data = new Uint8Array(Float32Array.from({ length: 8 }, (_, index) => 1 + index).buffer);
  const factors = ["rope_factors_long.weight", "rope_factors_short.weight"].map((name) => ({ name, sizes: [8], data }));
  const fields = { "rope.scaling.original_context_length": { u32: 64 }, "rope.scaling.attn_factor": { f32: 1.25 } };
  const { rope } = await configOf({ fields, tensors: [...TENSORS, ...factors] });
  assertEquals(rope.type === "longrope" && [rope.longFactors.at(-1), rope.attentionFactor, rope.originalMaxContext], [
    ...[8, 1.25, 64],
  ]);
});

Deno.test("yarn takes its constants from the metadata", async () => {
  const { rope } = await configOf({
    fields: {
      "rope.freq_base": { f32: 5000 },
      "rope.scaling.type": { text: "yarn" },
      "rope.scaling.factor": { f32: 4 },
      "rope.scaling.original_context_length": { u32: 64 },
    },
  });
  assertEquals([rope.type, rope.theta, rope.originalMaxContext], ["yarn", 5000, 64]);
});

Deno.test("a tensor of frequency factors divides the frequencies", async () => {
  const factors = Float32Array.from({ length: 8 }, (_, index) => 1 + index);
  const tensor = { name: "rope_freqs.weight", sizes: [8], data: new Uint8Array(factors.buffer) };
  const { rope } = await configOf({ tensors: [...TENSORS, tensor] });
  const { invFreq } = ropeFrequencies(rope, 16, 256);
  assertAlmostEquals(invFreq[3] ?? NaN, 10_000 ** (-6 / 16) / 4, 1e-7);
});

for (
  const [name, model, ...parts] of [
    ["an unknown architecture", { architecture: "mamba" }, '"mamba"', "llama"],
    ["a missing size", { fields: { block_count: undefined } }, '"llama.block_count"'],
    ["an absurd size", { fields: { embedding_length: { u32: 2 ** 31 } } }, '"llama.embedding_length"'],
    ["a size that is a text", { fields: { context_length: { text: "long" } } }, '"llama.context_length"'],
    ["layers with different numbers of heads", {
      fields: { block_count: { u32: 2 }, "attention.head_count_kv": { i32s: [1, 2] } },
    }, '"llama.attention.head_count_kv"'],
    ["an unknown rotation", { fields: { "rope.scaling.type": { text: "spiral" } } }, '"llama.rope.scaling.type"'],
    ["values of another size than keys", { fields: { "attention.value_length": { u32: 32 } } }, "value_length"],
    ["experts that the architecture does not have", { fields: { expert_count: { u32: 8 } } }, "expert_count"],
    ["a rotation of a part of a head", { fields: { "rope.dimension_count": { u32: 8 } } }, "rope.dimension_count"],
    ["frequency factors of another size", {
      tensors: [...TENSORS, { name: "rope_freqs.weight", sizes: [4] }],
    }, "rope_freqs.weight"],
    [
      "frequency factors of 0",
      {
        tensors: [...TENSORS, { name: "rope_freqs.weight", sizes: [8] }],
      },
      "rope_freqs.weight",
      "numbers",
    ],
    ["a missing tensor, by its name in the file", {
      tensors: TENSORS.filter(({ name }) => name !== "blk.0.attn_q.weight"),
    }, '"blk.0.attn_q.weight"'],
    ["a tensor that nothing reads", {
      tensors: [...TENSORS, { name: "blk.0.attn_sub_norm.weight", sizes: [32] }],
    }, '"blk.0.attn_sub_norm.weight"'],
    [
      "a format that no operation reads",
      {
        tensors: [...TENSORS.slice(1), {
          name: "token_embd.weight",
          sizes: [32, 4],
          type: 20,
          data: new Uint8Array(72),
        }],
      },
      '"token_embd.weight"',
      "IQ4_NL",
    ],
    ["no embedding", { tensors: TENSORS.slice(1) }, "token_embd.weight"],
  ] as [string, Model, ...string[]][]
) {
  Deno.test(`a GGUF file with ${name} is refused`, () => assertRefused(model, ...parts));
}
