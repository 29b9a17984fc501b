import { type ModelConfig, parseModelConfig } from "../folder/config.ts";
import { ConfigFields, type Range } from "../folder/config_fields.ts";
import type { JsonObject } from "../folder/json_file.ts";
import { rotaryDimOf } from "../folder/rope.ts";
import type { CheckpointTensor } from "../folder/checkpoint.ts";
import { MAX_PIECE_BYTES, readTensorInPieces } from "../folder/safetensors.ts";
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
const ROPE_TYPES = ["none", "linear", "yarn", "longrope"];
const ROPE_DIVISORS = "rope_freqs.weight";
const LONG_FACTORS = "rope_factors_long.weight";
const SHORT_FACTORS = "rope_factors_short.weight";
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
export function ggufConfig(header: GgufHeader, tensors: Tensors): ModelConfig {
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
      ...ropeFields(fields, tensors),
      ...family.config?.(fields),
    },
    header.file,
    (field) => prefix + (FIELD_NAMES[field] ?? OTHER_NAMES[field] ?? field),
  );
  refuseDifferences(fields, config, family);
  const adjusted = family.wholeNorms ? { ...config, normOffset: 0 as const } : config;
  const divisors = tensors.get(ROPE_DIVISORS);
  return Object.freeze(divisors === undefined ? adjusted : withDivisors(adjusted, divisors));
}

/** Some files list a number for every layer. */
function oneForAll(value: unknown): unknown {
  return Array.isArray(value) && value.length > 0 && value.every((item) => item === value[0]) ? value[0] : value;
}

/** Rows of the embedding. */
function vocabularyOf({ file }: GgufHeader, tensors: Tensors): number {
  const [rows] = tensors.get("token_embd.weight")?.shape ?? [];
  if (rows !== undefined) return rows;
  throw new PagesiftError("model", `No tensor "token_embd.weight" in "${file}"; use a file with a whole model`);
}

type Tensors = ReadonlyMap<string, CheckpointTensor>;

function ropeFields(fields: ConfigFields, tensors: Tensors): JsonObject {
  const heads = fields.count("attention.head_count", SIZE);
  const headDim = fields.count("attention.key_length", SIZE, fields.count("embedding_length", SIZE) / heads);
  const rotaryDim = fields.count("rope.dimension_count", SIZE, headDim);
  const scaling = longRope(fields, tensors, rotaryDim / 2) ?? ropeScaling(fields);
  return { partial_rotary_factor: rotaryDim / headDim, ...scaling && { rope_scaling: scaling } };
}

/** Factors for short and for long contexts, which lie in tensors whatever type of scaling the metadata name. */
function longRope(fields: ConfigFields, tensors: Tensors, count: number): JsonObject | undefined {
  const [long, short] = [tensors.get(LONG_FACTORS), tensors.get(SHORT_FACTORS)];
  if (!long && !short) return undefined;
  if (!long || !short) {
    const problem = `No tensor "${long ? SHORT_FACTORS : LONG_FACTORS}" in "${fields.file}"`;
    throw new PagesiftError("model", `${problem}; use a file with a whole model`);
  }
  const attentionFactor = fields.optionalNumber("rope.scaling.attn_factor", WEIGHT);
  return {
    rope_type: "longrope",
    short_factor: readFactors(short, count),
    long_factor: readFactors(long, count),
    ...attentionFactor !== undefined && { attention_factor: attentionFactor },
  };
}

function ropeScaling(fields: ConfigFields): JsonObject | undefined {
  const linear = fields.optionalNumber("rope.scale_linear", FACTOR);
  const type = fields.text("rope.scaling.type", linear === undefined ? "none" : "linear");
  if (!ROPE_TYPES.includes(type)) fields.refuse("rope.scaling.type", `one of ${ROPE_TYPES.join(", ")}`);
  if (type === "none") return undefined;
  if (type === "longrope") fields.refuse("rope.scaling.type", `another one in a file without "${LONG_FACTORS}"`);
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
  if (rope.type !== "default") refuseTensor(tensor, `stands beside a rotation of type "${rope.type}"`);
  const divisors = Object.freeze(readFactors(tensor, rotaryDimOf(rope, headDim) / 2));
  const { theta, partialRotaryFactor, positionBeta } = rope;
  return { ...config, rope: Object.freeze({ type: "divided", divisors, theta, partialRotaryFactor, positionBeta }) };
}

/** A number for each pair of rotated dimensions. */
function readFactors(tensor: CheckpointTensor, count: number): number[] {
  if (tensor.dtype !== "F32" || tensor.shape.join() !== `${count}`) {
    refuseTensor(tensor, `is ${tensor.dtype} [${tensor.shape.join(", ")}], expected F32 [${count}]`);
  }
  const bytes = new Uint8Array(tensor.bytes);
  readTensorInPieces(tensor.file, tensor, MAX_PIECE_BYTES, (piece, offset) => bytes.set(piece, offset));
  const factors = Array.from(new Float32Array(bytes.buffer));
  if (factors.every((value) => value >= FACTOR.min && value <= FACTOR.max)) return factors;
  return refuseTensor(tensor, `contains numbers outside ${FACTOR.min} to ${FACTOR.max}`);
}

function refuseTensor({ name, file }: CheckpointTensor, problem: string): never {
  throw new PagesiftError("model", `Cannot read tensor "${shorten(name)}" of "${file}": ${problem}; use another file`);
}
