import { type ModelConfig, parseModelConfig } from "../folder/config.ts";
import { ConfigFields, type Range } from "../folder/config_fields.ts";
import type { JsonObject } from "../folder/json_file.ts";
import { rotaryDimOf } from "../folder/rope.ts";
import type { CheckpointTensor } from "../folder/checkpoint.ts";
import { readTensorInPieces } from "../folder/safetensors.ts";
import { PagesiftError } from "../errors.ts";
import { shorten } from "../folder/json_file.ts";
import { GGUF_FAMILIES, type GgufFamily } from "./families.ts";
import type { GgufHeader } from "./header.ts";

/** Fields of `config.json`, and of the metadata behind the architecture's name. */
const FIELD_NAMES: Readonly<Record<string, string>> = {
  num_hidden_layers: "block_count",
  max_position_embeddings: "context_length",
  hidden_size: "embedding_length",
  intermediate_size: "feed_forward_length",
  num_attention_heads: "attention.head_count",
  num_key_value_heads: "attention.head_count_kv",
  head_dim: "attention.key_length",
  rms_norm_eps: "attention.layer_norm_rms_epsilon",
  rope_theta: "rope.freq_base",
  original_max_position_embeddings: "rope.scaling.original_context_length",
};
/** Names in the metadata of further fields, for messages. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  num_experts: "expert_count",
  num_experts_per_tok: "expert_used_count",
  moe_intermediate_size: "expert_feed_forward_length",
  sliding_window: "attention.sliding_window",
  partial_rotary_factor: "rope.dimension_count",
  factor: "rope.scaling.factor",
  rope_type: "rope.scaling.type",
};
const ROPE_TYPES = ["none", "linear", "yarn"];
const ROPE_DIVISORS = "rope_freqs.weight";
const SIZE: Range = { min: 1, max: 1_000_000 };
const FACTOR: Range = { min: 1e-3, max: 1e6 };
const WEIGHT: Range = { min: 0, max: 1e3 };

/** The family of a file. @throws {PagesiftError} of kind "model" that names the supported ones */
export function ggufFamily({ metadata, file }: GgufHeader): { name: string; family: GgufFamily } {
  const name = new ConfigFields(Object.fromEntries(metadata), file).text("general.architecture");
  const family = Object.hasOwn(GGUF_FAMILIES, name) ? GGUF_FAMILIES[name] : undefined;
  if (family !== undefined) return { name, family };
  const supported = Object.keys(GGUF_FAMILIES).join(", ");
  throw new PagesiftError(
    "model",
    `Architecture "${shorten(name)}" is not supported in "${file}"; supported are ${supported}`,
  );
}

/**
 * The config of a file's model: its metadata, written as a `config.json`, goes through the same checks. `tensors` are those of all parts,
 * by their names in the file. Throws "model" errors that name the field of the metadata.
 */
export function ggufConfig(header: GgufHeader, tensors: ReadonlyMap<string, CheckpointTensor>): ModelConfig {
  const { name, family } = ggufFamily(header);
  const prefix = `${name}.`;
  const own = [...header.metadata].filter(([key]) => key.startsWith(prefix));
  const json = Object.fromEntries(own.map(([key, value]) => [key.slice(prefix.length), oneForAll(value)]));
  const fields = new ConfigFields(json, header.file, (field) => prefix + field);
  const usual = Object.entries(FIELD_NAMES).map(([theirs, ours]) => [theirs, json[ours]]);
  const has = (tensor: string): boolean => tensors.has(tensor);
  const config = parseModelConfig(
    {
      ...Object.fromEntries(usual),
      architectures: [family.architecture],
      vocab_size: vocabularyOf(header, tensors),
      tie_word_embeddings: !has("output.weight"),
      attention_bias: has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias"),
      mlp_bias: has("blk.0.ffn_up.bias"),
      ...ropeFields(fields),
      ...family.config?.(fields),
    },
    header.file,
    (field) => prefix + (FIELD_NAMES[field] ?? OTHER_NAMES[field] ?? field),
  );
  refuseDifferences(fields, config, family);
  const divisors = tensors.get(ROPE_DIVISORS);
  return divisors === undefined ? config : withDivisors(config, divisors);
}

/** Some files list a number for every layer. */
function oneForAll(value: unknown): unknown {
  return Array.isArray(value) && value.length > 0 && value.every((item) => item === value[0]) ? value[0] : value;
}

/** Rows of the embedding. */
function vocabularyOf({ file }: GgufHeader, tensors: ReadonlyMap<string, CheckpointTensor>): number {
  const [rows] = tensors.get("token_embd.weight")?.shape ?? [];
  if (rows !== undefined) return rows;
  throw new PagesiftError("model", `No tensor "token_embd.weight" in "${file}"; use a file with a whole model`);
}

function ropeFields(fields: ConfigFields): JsonObject {
  const heads = fields.count("attention.head_count", SIZE);
  const headDim = fields.count("attention.key_length", SIZE, fields.count("embedding_length", SIZE) / heads);
  const rotaryDim = fields.count("rope.dimension_count", SIZE, headDim);
  const scaling = ropeScaling(fields);
  return { partial_rotary_factor: rotaryDim / headDim, ...scaling && { rope_scaling: scaling } };
}

function ropeScaling(fields: ConfigFields): JsonObject | undefined {
  const linear = fields.optionalNumber("rope.scale_linear", FACTOR);
  const type = fields.text("rope.scaling.type", linear === undefined ? "none" : "linear");
  if (!ROPE_TYPES.includes(type)) fields.refuse("rope.scaling.type", `one of ${ROPE_TYPES.join(", ")}`);
  if (type === "none") return undefined;
  const factor = fields.number("rope.scaling.factor", FACTOR, linear);
  if (type === "linear") return { rope_type: "linear", factor };
  // The attention factor of the metadata multiplies what yarn has by itself; that of config.json replaces it.
  const share = fields.number("rope.scaling.attn_factor", WEIGHT, 1);
  return {
    rope_type: "yarn",
    factor,
    beta_fast: fields.number("rope.scaling.yarn_beta_fast", FACTOR, 32),
    beta_slow: fields.number("rope.scaling.yarn_beta_slow", FACTOR, 1),
    ...share !== 1 && { attention_factor: share * (factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1) },
  };
}

/** What the metadata can say and the forward pass does not do. */
function refuseDifferences(fields: ConfigFields, config: ModelConfig, { interleaved }: GgufFamily): void {
  const { headDim, rope } = config;
  if (fields.count("attention.value_length", SIZE, headDim) !== headDim) {
    fields.refuse("attention.value_length", `"${fields.label("attention.key_length")}" (${headDim})`);
  }
  if (!config.moe && fields.count("expert_count", { min: 0, max: 1e6 }, 0) > 0) fields.refuse("expert_count", "0");
  if (interleaved && rotaryDimOf(rope, headDim) !== headDim) {
    fields.refuse("rope.dimension_count", `the size of a head (${headDim}) for this architecture`);
  }
}

/** The config with the frequencies that a tensor of the file gives. */
function withDivisors(config: ModelConfig, tensor: CheckpointTensor): ModelConfig {
  const { rope, headDim } = config;
  const count = rotaryDimOf(rope, headDim) / 2;
  const problem = tensor.dtype !== "F32" || tensor.shape.join() !== `${count}`
    ? `is ${tensor.dtype} [${tensor.shape.join(", ")}], expected F32 [${count}]`
    : rope.type !== "default"
    ? `stands beside a rotation of type "${rope.type}"`
    : undefined;
  if (problem !== undefined) refuseTensor(tensor, problem);
  const bytes = new Uint8Array(tensor.bytes);
  readTensorInPieces(tensor.file, tensor, 8 * count, (piece, offset) => bytes.set(piece, offset));
  const divisors = Array.from(new Float32Array(bytes.buffer));
  if (!divisors.every((value) => value >= FACTOR.min && value <= FACTOR.max)) {
    refuseTensor(tensor, `contains numbers outside ${FACTOR.min} to ${FACTOR.max}`);
  }
  const { theta, partialRotaryFactor, positionBeta } = rope;
  return Object.freeze({
    ...config,
    rope: Object.freeze({
      type: "divided",
      divisors: Object.freeze(divisors),
      theta,
      partialRotaryFactor,
      positionBeta,
    }),
  });
}

function refuseTensor({ name, file }: CheckpointTensor, problem: string): never {
  throw new PagesiftError("model", `Cannot read tensor "${shorten(name)}" of "${file}": ${problem}; use another file`);
}
