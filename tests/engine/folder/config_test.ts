import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { type ModelConfig, parseModelConfig, readModelConfig } from "../../../engine/folder/config.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { withFiles } from "../../support/folders.ts";

const FIXTURES = fromFileUrl(new URL("../../fixtures/hf", import.meta.url));

const LLAMA = {
  architectures: ["LlamaForCausalLM"],
  vocab_size: 700,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 4096,
};
const MISTRAL = { ...LLAMA, architectures: ["MistralForCausalLM"] };
const QWEN2 = { ...LLAMA, architectures: ["Qwen2ForCausalLM"] };
const QWEN3 = { ...LLAMA, architectures: ["Qwen3ForCausalLM"] };
const PHI3 = { ...LLAMA, architectures: ["Phi3ForCausalLM"] };
const MOE = {
  ...LLAMA,
  architectures: ["Qwen3MoeForCausalLM"],
  num_experts: 8,
  num_experts_per_tok: 2,
  moe_intermediate_size: 48,
};
const MINISTRAL3 = {
  ...LLAMA,
  architectures: ["Ministral3ForCausalLM"],
  rope_parameters: { rope_type: "yarn", llama_4_scaling_beta: 0.1, original_max_position_embeddings: 16_384 },
};
const SU = { type: "su", short_factor: new Array(8).fill(1), long_factor: new Array(8).fill(2) };
const GEMMA3 = { ...LLAMA, architectures: ["Gemma3ForCausalLM"], num_hidden_layers: 7, head_dim: 32 };
const NESTED_YARN = { full_attention: {}, sliding_attention: { rope_type: "yarn", factor: 2 } };
const SMOLLM3 = { ...LLAMA, architectures: ["SmolLM3ForCausalLM"] };
const GRANITE = { ...LLAMA, architectures: ["GraniteForCausalLM"] };

function parse(json: unknown): ModelConfig {
  return parseModelConfig(json, "m/config.json");
}

/** Asserts a one-line "model" error that names the file and holds all of `parts`. */
function assertRefused(json: unknown, ...parts: string[]): void {
  const error = assertThrows(() => parse(json), PagesiftError);
  assertEquals(error.kind, "model");
  for (const part of ["m/config.json", ...parts]) assertStringIncludes(error.message, part);
  assert(!error.message.includes("\n") && !error.message.endsWith("."));
}

const NUM_LAYERS: Record<string, number> = { "gemma3-bf16": 6, "gemma3-f32": 7, "smollm3-f32": 5 };
const FOLDERS = [...Deno.readDirSync(FIXTURES)].map((entry) => entry.name).sort();
for (const name of FOLDERS) {
  Deno.test(`readModelConfig reads ${name}`, async () => {
    const config = await readModelConfig(join(FIXTURES, name));
    assertEquals([config.numLayers, config.hiddenSize, config.eosTokenIds.length], [NUM_LAYERS[name] ?? 3, 64, 1]);
  });
}

Deno.test("readModelConfig says which file is missing", async () => {
  await withFiles({}, async (folder) => {
    await assertRejects(() => readModelConfig(folder), PagesiftError, 'No "config.json"');
  });
});

Deno.test("readModelConfig refuses a repeated key", async () => {
  await withFiles({ "config.json": '{"vocab_size": 1, "vocab\\u005fsize": 2}' }, async (folder) => {
    await assertRejects(() => readModelConfig(folder), PagesiftError, 'key "vocab_size" appears twice');
  });
});

Deno.test("readModelConfig refuses deep nesting", async () => {
  await withFiles({ "config.json": `{"a":${"[".repeat(1_000_000)}` }, async (folder) => {
    await assertRejects(() => readModelConfig(folder), PagesiftError, "nested deeper");
  });
});

Deno.test("readModelConfig refuses a folder in place of the file", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.mkdir(join(folder, "config.json"));
  await assertRejects(() => readModelConfig(folder), PagesiftError, "expected a regular file");
  await Deno.remove(folder, { recursive: true });
});

for (const [text, reason] of [["{", "not valid JSON"], ["[]", "expected a JSON object"]] as const) {
  Deno.test(`readModelConfig refuses ${text}`, async () => {
    await withFiles({ "config.json": text }, async (folder) => {
      await assertRejects(() => readModelConfig(folder), PagesiftError, reason);
    });
  });
}

Deno.test("parseModelConfig returns a frozen object", () => {
  const config = parse(MOE);
  assert([config, config.rope, config.slidingWindows, config.moe!, config.attentionBias].every(Object.isFrozen));
});

Deno.test("parseModelConfig goes by the model type where no architecture is named", () => {
  const { architectures: _named, ...others } = QWEN3;
  assertEquals(parse({ ...others, model_type: "qwen3" }).architecture, "Qwen3ForCausalLM");
  assertEquals(parse({ ...others, model_type: "qwen3", architectures: null }), parse(QWEN3));
});

Deno.test("parseModelConfig takes swish for silu", () => {
  assertEquals(parse({ ...LLAMA, hidden_act: "swish" }), parse(LLAMA));
});

Deno.test("parseModelConfig divides the hidden size among heads", () => {
  assertEquals(parse(LLAMA).headDim, 16);
});

Deno.test("parseModelConfig knows that Qwen3 heads are 128 wide", () => {
  assertEquals(parse(QWEN3).headDim, 128);
});

Deno.test("parseModelConfig gives every query head its own KV head where none are named", () => {
  assertEquals(parse({ ...LLAMA, num_key_value_heads: null }).numKvHeads, 4);
});

Deno.test("parseModelConfig biases only q, k and v of Qwen2", () => {
  assertEquals(parse(QWEN2).attentionBias, { qkv: true, output: false });
});

Deno.test("parseModelConfig biases all four projections of Llama", () => {
  assertEquals(parse({ ...LLAMA, attention_bias: true }).attentionBias, { qkv: true, output: true });
});

Deno.test("parseModelConfig ignores attention_bias of Mistral", () => {
  assertEquals(parse({ ...MISTRAL, attention_bias: true }).attentionBias, { qkv: false, output: false });
});

Deno.test("parseModelConfig normalizes queries and keys of Qwen3 only", () => {
  assertEquals([parse(QWEN3).qkNorm, parse(QWEN2).qkNorm], [true, false]);
});

Deno.test("parseModelConfig fuses projections of Phi3 only", () => {
  assertEquals([parse(PHI3).fusedProjections, parse(LLAMA).fusedProjections], [true, false]);
});

Deno.test("parseModelConfig does not tie embeddings unless told", () => {
  assertEquals([parse(LLAMA).tieWordEmbeddings, parse({ ...LLAMA, tie_word_embeddings: true }).tieWordEmbeddings], [
    false,
    true,
  ]);
});

Deno.test("parseModelConfig reads one or several end tokens", () => {
  const ids = (eos_token_id: unknown) => parse({ ...LLAMA, eos_token_id }).eosTokenIds;
  assertEquals([ids(2), ids([2, 3]), ids(null)], [[2], [2, 3], []]);
});

Deno.test("parseModelConfig leaves out negative token ids, which stand for none", () => {
  const config = parse({ ...LLAMA, eos_token_id: [-1, 2], bos_token_id: -1 });
  assertEquals([config.eosTokenIds, config.bosTokenId], [[2], undefined]);
  assertEquals(parse({ ...LLAMA, eos_token_id: -1 }).eosTokenIds, []);
});

Deno.test("readModelConfig accepts any value in a field that is not used", async () => {
  const unused =
    '"router_aux_loss_coef": Infinity, "time_step_limit": [0.0, Infinity], "initializer_range": -Infinity, ' +
    '"attention_dropout": NaN, "torch_dtype": 7, "dtype": {"a": null}, "model_type": null, "pad_token_id": -1';
  const text = JSON.stringify(LLAMA).replace("{", `{${unused},`);
  await withFiles({ "config.json": text }, async (folder) => {
    assertEquals(await readModelConfig(folder), parse(LLAMA));
  });
});

for (
  const [field, literal] of [
    ["vocab_size", "Infinity"],
    ["rms_norm_eps", "NaN"],
    ["rope_theta", "Infinity"],
    ["tie_word_embeddings", "NaN"],
    ["eos_token_id", "-Infinity"],
    ["hidden_act", "NaN"],
    ["mlp_only_layers", "[Infinity]"],
  ] as const
) {
  Deno.test(`readModelConfig refuses ${literal} for ${field}`, async () => {
    const { [field as "vocab_size"]: _replaced, ...others } = MOE;
    const text = JSON.stringify(others).replace("{", `{"${field}": ${literal},`);
    await withFiles({ "config.json": text }, async (folder) => {
      const error = await assertRejects(() => readModelConfig(folder), PagesiftError, `"${field}"`);
      assertStringIncludes(error.message, literal);
    });
  });
}

Deno.test("readModelConfig reads a file with a byte order mark, CRLF and numbers written as floats", async () => {
  const text = "\ufeff" + JSON.stringify(LLAMA, null, 2).replaceAll("\n", "\r\n").replace("700", "700.0");
  await withFiles({ "config.json": text }, async (folder) => assertEquals(await readModelConfig(folder), parse(LLAMA)));
});

Deno.test("parseModelConfig slides all layers of Mistral", () => {
  assertEquals(parse({ ...MISTRAL, sliding_window: 48 }).slidingWindows, [48, 48, 48]);
});

Deno.test("parseModelConfig takes a window as wide as the context for none", () => {
  assertEquals(parse({ ...MISTRAL, sliding_window: 4096 }).slidingWindows, [0, 0, 0]);
});

Deno.test("parseModelConfig gives Mistral the window its library assumes", () => {
  assertEquals(parse({ ...MISTRAL, max_position_embeddings: 32_768 }).slidingWindows, [4096, 4096, 4096]);
});

Deno.test("parseModelConfig slides no layer of Mistral where the window is null", () => {
  assertEquals(parse({ ...MISTRAL, max_position_embeddings: 32_768, sliding_window: null }).slidingWindows, [0, 0, 0]);
});

Deno.test("parseModelConfig ignores the window of Qwen2 unless it is used", () => {
  assertEquals(parse({ ...QWEN2, sliding_window: 48, max_window_layers: 0 }).slidingWindows, [0, 0, 0]);
});

Deno.test("parseModelConfig slides Qwen2 from max_window_layers on", () => {
  const json = { ...QWEN2, use_sliding_window: true, sliding_window: 48, max_window_layers: 1 };
  assertEquals(parse(json).slidingWindows, [0, 48, 48]);
});

Deno.test("parseModelConfig slides the layers that layer_types names", () => {
  const layer_types = ["sliding_attention", "full_attention", "sliding_attention"];
  const json = { ...QWEN3, use_sliding_window: true, sliding_window: 48, max_window_layers: 3, layer_types };
  assertEquals(parse(json).slidingWindows, [48, 0, 48]);
});

Deno.test("parseModelConfig slides all layers of Qwen3-MoE where the window is used", () => {
  assertEquals(parse({ ...MOE, use_sliding_window: true, sliding_window: 48 }).slidingWindows, [48, 48, 48]);
});

Deno.test("parseModelConfig reads which layers have experts", () => {
  const moe = parse({ ...MOE, mlp_only_layers: [2], decoder_sparse_step: 1, norm_topk_prob: true }).moe;
  assertEquals(moe, {
    numExperts: 8,
    numExpertsPerToken: 2,
    intermediateSize: 48,
    normTopkProb: true,
    sparseLayers: [true, true, false],
  });
});

Deno.test("parseModelConfig gives experts to every n-th layer", () => {
  assertEquals(parse({ ...MOE, decoder_sparse_step: 2 }).moe?.sparseLayers, [false, true, false]);
});

Deno.test("parseModelConfig reads rope_parameters and the older fields alike", () => {
  const scaling = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
  const older = { ...LLAMA, rope_theta: 500_000, rope_scaling: { type: "llama3", ...scaling } };
  const newer = { ...LLAMA, rope_parameters: { rope_type: "llama3", rope_theta: 500_000, ...scaling } };
  assertEquals(parse(older).rope, parse(newer).rope);
});

Deno.test("parseModelConfig takes rope_scaling null for the default", () => {
  const rope = parse({ ...LLAMA, rope_theta: 500_000, rope_scaling: null }).rope;
  assertEquals(rope, { type: "default", theta: 500_000, partialRotaryFactor: 1, positionBeta: 0 });
});

Deno.test("parseModelConfig reads partial_rotary_factor beside the rope fields", () => {
  assertEquals(parse({ ...PHI3, hidden_size: 512, partial_rotary_factor: 0.75 }).rope.partialRotaryFactor, 0.75);
});

Deno.test("parseModelConfig prefers the model's own original context", () => {
  const rope_parameters = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 };
  assertEquals(parse({ ...QWEN2, rope_parameters }).rope.originalMaxContext, 64);
  assertEquals(
    parse({ ...QWEN2, rope_parameters, original_max_position_embeddings: 128 }).rope.originalMaxContext,
    128,
  );
});

Deno.test("parseModelConfig reads how queries of Ministral3 grow", () => {
  const { positionBeta, originalMaxContext } = parse(MINISTRAL3).rope;
  assertEquals([positionBeta, originalMaxContext], [0.1, 16_384]);
});

Deno.test("parseModelConfig reads both styles of Gemma's rotations alike", () => {
  const older = {
    ...GEMMA3,
    rope_local_base_freq: 20_000,
    rope_theta: 5e5,
    rope_scaling: { type: "linear", factor: 8 },
  };
  const rope_parameters = {
    full_attention: { rope_type: "linear", factor: 8, rope_theta: 5e5 },
    sliding_attention: { rope_type: "default", rope_theta: 20_000 },
  };
  const { rope, localRope } = parse(older);
  assertEquals(rope, { type: "linear", factor: 8, theta: 5e5, partialRotaryFactor: 1, positionBeta: 0 });
  assertEquals(localRope, { type: "default", theta: 20_000, partialRotaryFactor: 1, positionBeta: 0 });
  assertEquals(parse({ ...GEMMA3, rope_parameters }), parse(older));
});

Deno.test("parseModelConfig slides five of six layers of Gemma, and rotates those locally", () => {
  const { slidingWindows, rotations } = parse({ ...GEMMA3, sliding_window: 64 });
  assertEquals(slidingWindows, [64, 64, 64, 64, 64, 0, 64]);
  assertEquals(rotations, slidingWindows.map((window) => window > 0 ? "local" : "global"));
});

Deno.test("parseModelConfig keeps the local rotation of Gemma where the window is as wide as the context", () => {
  const { slidingWindows, rotations } = parse({ ...GEMMA3, sliding_window: 4096, sliding_window_pattern: 2 });
  assertEquals(slidingWindows, new Array(7).fill(0));
  assertEquals(rotations, ["local", "global", "local", "global", "local", "global", "local"]);
});

Deno.test("parseModelConfig scales the embedding and the attention of Gemma", () => {
  const { scales } = parse({ ...GEMMA3, query_pre_attn_scalar: 100 });
  assertEquals(scales, { embedding: 8, roundsEmbedding: true, attention: 0.1, residual: 1, logits: 1 });
});

Deno.test("parseModelConfig ties the embeddings of Gemma and SmolLM3 unless told otherwise", () => {
  assertEquals([GEMMA3, SMOLLM3, GRANITE].map((json) => parse(json).tieWordEmbeddings), [true, true, false]);
});

Deno.test("parseModelConfig takes from a Gemma that sees images what its text_config says or leaves out", () => {
  // The fields of the published model of 4B parameters.
  const text_config = { hidden_size: 2560, intermediate_size: 10_240, num_hidden_layers: 34, sliding_window: 1024 };
  const architectures = ["Gemma3ForConditionalGeneration"];
  const config = parse({ architectures, text_config, eos_token_id: [1, 106], vision_config: {} });
  const { vocabSize, numQueryHeads, numKvHeads, headDim, maxContext } = config;
  assertEquals([vocabSize, numQueryHeads, numKvHeads, headDim, maxContext], [262_208, 8, 4, 256, 131_072]);
  assertEquals([config.hiddenSize, config.eosTokenIds], [2560, [1, 106]]);
});

Deno.test("parseModelConfig rotates all but every fourth layer of SmolLM3", () => {
  const { rotations } = parse({ ...SMOLLM3, num_hidden_layers: 5 });
  assertEquals(rotations, ["global", "global", "global", "none", "global"]);
});

Deno.test("parseModelConfig prefers the listed layers of SmolLM3 to the interval", () => {
  const { rotations } = parse({ ...SMOLLM3, no_rope_layers: [0, 1, 1], no_rope_layer_interval: 2 });
  assertEquals(rotations, ["none", "global", "global"]);
});

Deno.test("parseModelConfig slides the layers of SmolLM3 without a rotation where a window is used", () => {
  const json = { ...SMOLLM3, no_rope_layer_interval: 2, use_sliding_window: true, sliding_window: 48 };
  assertEquals(parse(json).slidingWindows, [0, 48, 0]);
});

Deno.test("parseModelConfig reads the multipliers of Granite", () => {
  const multipliers = { embedding_multiplier: 12, attention_multiplier: 0.0625, residual_multiplier: 0.22 };
  const { scales } = parse({ ...GRANITE, ...multipliers, logits_scaling: 8 });
  assertEquals(scales, { embedding: 12, roundsEmbedding: false, attention: 0.0625, residual: 0.22, logits: 0.125 });
});

for (const type of ["su", "yarn", "longrope"]) {
  Deno.test(`parseModelConfig takes ${type} of Phi3 for longrope`, () => {
    assertEquals(parse({ ...PHI3, rope_scaling: { ...SU, type } }).rope, {
      type: "longrope",
      shortFactors: new Array(8).fill(1),
      longFactors: new Array(8).fill(2),
      theta: 10_000,
      partialRotaryFactor: 1,
      positionBeta: 0,
      originalMaxContext: 4096,
    });
  });
}

const REFUSED: [name: string, json: unknown, ...parts: string[]][] = [
  ["a list", [], "expected a JSON object"],
  ["no architecture", { ...LLAMA, architectures: undefined }, "No architecture", "LlamaForCausalLM"],
  [
    "a multimodal wrapper",
    { architectures: ["Mistral3ForConditionalGeneration"], text_config: LLAMA },
    '"Mistral3ForConditionalGeneration" is not supported',
    "Qwen3MoeForCausalLM",
  ],
  ["an architecture named like a built-in", { ...LLAMA, architectures: ["toString"] }, '"toString" is not supported'],
  ["quantized weights", { ...LLAMA, quantization_config: { quant_method: "hqq" } }, '"hqq"', "bf16 weights"],
  ["a missing size", { ...LLAMA, hidden_size: undefined }, '"hidden_size"', "found nothing"],
  ["a size in quotes", { ...LLAMA, hidden_size: "64" }, '"hidden_size"', 'found "64"'],
  ["a fractional size", { ...LLAMA, vocab_size: 1.5 }, '"vocab_size"', "an integer from 1"],
  ["zero layers", { ...LLAMA, num_hidden_layers: 0 }, '"num_hidden_layers"', "from 1 to 1000", "found 0"],
  ["too many layers", { ...LLAMA, num_hidden_layers: 1001 }, '"num_hidden_layers"', "found 1001"],
  ["a huge vocabulary", { ...LLAMA, vocab_size: 1e15 }, '"vocab_size"', "10000000"],
  ["a huge hidden size", { ...LLAMA, hidden_size: 2 ** 40 }, '"hidden_size"', "1000000"],
  ["heads that do not divide", { ...LLAMA, num_attention_heads: 3 }, '"num_attention_heads"', "a multiple of"],
  ["a hidden size that heads do not divide", { ...LLAMA, hidden_size: 66 }, '"hidden_size"', "a multiple of"],
  ["an odd head_dim", { ...LLAMA, head_dim: 17 }, '"head_dim"', "a multiple of 16", "found 17"],
  ["a derived head size of 8", { ...LLAMA, hidden_size: 32 }, "a multiple of 16", "found 8"],
  ["an odd rotated share", { ...LLAMA, partial_rotary_factor: 0.7 }, '"partial_rotary_factor"', "even"],
  ["another activation", { ...LLAMA, hidden_act: "gelu" }, '"hidden_act"', '"silu"', 'found "gelu"'],
  ["a flag that is a number", { ...LLAMA, tie_word_embeddings: 1 }, '"tie_word_embeddings"', "true or false"],
  ["end tokens in quotes", { ...LLAMA, eos_token_id: ["2"] }, '"eos_token_id"', 'found ["2"]'],
  ["dynamic rope", { ...LLAMA, rope_scaling: { type: "dynamic", factor: 2 } }, '"type"', "llama3, yarn", '"dynamic"'],
  ["longrope without factors", { ...LLAMA, rope_parameters: { rope_type: "longrope" } }, '"short_factor"', "8 numbers"],
  [
    "longrope of another head size",
    { ...PHI3, rope_scaling: { ...SU, long_factor: [1] } },
    '"long_factor"',
    "8 numbers",
  ],
  [
    "a longrope factor of 0",
    { ...PHI3, rope_scaling: { ...SU, short_factor: new Array(8).fill(0) } },
    '"short_factor"',
  ],
  ["linear rope of Phi3", { ...PHI3, rope_scaling: { type: "linear", factor: 4 } }, '"type"', '"linear"'],
  ["softcapped logits", { ...GEMMA3, final_logit_softcapping: 30 }, '"final_logit_softcapping"', "null"],
  ["attention to both sides", { ...GEMMA3, use_bidirectional_attention: true }, '"use_bidirectional_attention"'],
  ["another activation of Gemma", { ...GEMMA3, hidden_activation: "silu" }, '"hidden_activation"', "gelu_pytorch_tanh"],
  ["a Gemma layer pattern of 0", { ...GEMMA3, sliding_window_pattern: 0 }, '"sliding_window_pattern"'],
  ["yarn for local layers", { ...GEMMA3, rope_parameters: NESTED_YARN }, '"rope_type"', "default or linear"],
  ["a wrapper without a text_config", { architectures: ["Gemma3ForConditionalGeneration"] }, '"text_config"'],
  ["too short a list of rotated layers", { ...SMOLLM3, no_rope_layers: [1, 0] }, '"no_rope_layers"', "3 items"],
  ["a list of rotated layers in words", { ...SMOLLM3, no_rope_layers: ["1", "1", "0"] }, '"no_rope_layers"'],
  ["logits divided by 0", { ...GRANITE, logits_scaling: 0 }, '"logits_scaling"'],
  ["linear rope without factor", { ...LLAMA, rope_scaling: { type: "linear" } }, '"factor"', "found nothing"],
  ["rope parameters a layer type", { ...QWEN3, rope_parameters: { full_attention: {} } }, "the same for all layers"],
  ["rope_scaling that is a number", { ...LLAMA, rope_scaling: 2 }, '"rope_scaling"', "an object"],
  ["Ministral3 without rope parameters", { ...MINISTRAL3, rope_parameters: null }, '"rope_parameters"'],
  ["layer_types of another length", { ...QWEN3, layer_types: ["full_attention"] }, '"layer_types"', "(3) items"],
  ["an unknown layer type", { ...QWEN3, layer_types: ["linear_attention"] }, '"layer_types"'],
  ["more chosen experts than experts", { ...MOE, num_experts_per_tok: 9 }, '"num_experts_per_tok"', "from 1 to 8"],
  [
    "sliding layers without a window",
    { ...QWEN3, layer_types: new Array(3).fill("sliding_attention") },
    '"sliding_window"',
  ],
];

for (const [name, json, ...parts] of REFUSED) {
  Deno.test(`parseModelConfig refuses ${name}`, () => assertRefused(json, ...parts));
}
