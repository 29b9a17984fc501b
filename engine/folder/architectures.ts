import type { JsonObject } from "./json_file.ts";

/**
 * Where `config.json` gives the sliding windows of layers: nowhere, for all layers, for all if a flag is set, for each layer. `pattern`
 * leaves every n-th layer without one unless the layers are listed.
 */
export type WindowRule = "none" | "all" | "flagged" | "per layer" | "pattern";

/** How layers rotate queries and keys: all alike, those with a sliding window at a base of their own, or only those that are listed. */
export type RotationRule = "same" | "by window" | "listed";

/** Properties of a model family, and the defaults of the transformers library for fields that `config.json` lacks. */
export interface Family {
  modelType: string;
  /** `field` reads `attention_bias`, which then covers the output projection too. */
  attentionBias: "none" | "qkv" | "field";
  /** Reads `mlp_bias`. */
  mlpBiasField: boolean;
  qkNorm: boolean;
  fusedProjections: boolean;
  windows: WindowRule;
  rotations: RotationRule;
  activation: "silu" | "gelu_tanh";
  /** Norm weights are stored less this. */
  normOffset: 0 | 1;
  /** The output of attention and of the feed-forward block is normalized before it joins the hidden state. */
  postNorms: boolean;
  /** Which fields scale embedding, attention, residual stream and logits. */
  scales: "none" | "gemma" | "granite";
  /** The language model is a part of the model, with its fields under `text_config`. */
  nested: boolean;
  /** Values of fields that published files leave out. */
  assumed: JsonObject;
  /** Fields that must be absent, null or false. */
  unsupported: readonly string[];
  moe: boolean;
  /** Reads `llama_4_scaling_beta`. */
  positionScaling: boolean;
  defaultRmsNormEps: number;
  /** Undefined: `hidden_size / num_attention_heads`. */
  defaultHeadDim: number | undefined;
  /** Undefined: `num_attention_heads`. */
  defaultKvHeads: number | undefined;
  /** Tokens; undefined: no window. */
  defaultWindow: number | undefined;
  defaultTheta: number;
  defaultTied: boolean;
}

const LLAMA: Family = {
  modelType: "llama",
  attentionBias: "field",
  mlpBiasField: true,
  qkNorm: false,
  fusedProjections: false,
  windows: "none",
  rotations: "same",
  activation: "silu",
  normOffset: 0,
  postNorms: false,
  scales: "none",
  nested: false,
  assumed: {},
  unsupported: [],
  moe: false,
  positionScaling: false,
  defaultRmsNormEps: 1e-6,
  defaultHeadDim: undefined,
  defaultKvHeads: undefined,
  defaultWindow: undefined,
  defaultTheta: 10_000,
  defaultTied: false,
};

const MISTRAL: Family = {
  ...LLAMA,
  modelType: "mistral",
  attentionBias: "none",
  mlpBiasField: false,
  windows: "all",
  defaultKvHeads: 8,
  defaultWindow: 4096,
};

const MINISTRAL3: Family = {
  ...MISTRAL,
  modelType: "ministral3",
  positionScaling: true,
  defaultRmsNormEps: 1e-5,
  defaultHeadDim: 128,
  defaultWindow: undefined,
};

const QWEN2: Family = {
  ...LLAMA,
  modelType: "qwen2",
  attentionBias: "qkv",
  mlpBiasField: false,
  windows: "per layer",
  defaultKvHeads: 32,
  defaultWindow: 4096,
};

const QWEN3: Family = { ...QWEN2, modelType: "qwen3", attentionBias: "field", qkNorm: true, defaultHeadDim: 128 };

const QWEN3_MOE: Family = {
  ...QWEN3,
  modelType: "qwen3_moe",
  windows: "flagged",
  moe: true,
  defaultHeadDim: undefined,
  defaultKvHeads: 4,
};

const PHI3: Family = {
  ...LLAMA,
  modelType: "phi3",
  attentionBias: "none",
  mlpBiasField: false,
  fusedProjections: true,
  windows: "all",
  defaultRmsNormEps: 1e-5,
};

const GEMMA3: Family = {
  ...LLAMA,
  modelType: "gemma3_text",
  mlpBiasField: false,
  qkNorm: true,
  windows: "pattern",
  rotations: "by window",
  activation: "gelu_tanh",
  normOffset: 1,
  postNorms: true,
  scales: "gemma",
  unsupported: ["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"],
  defaultHeadDim: 256,
  defaultKvHeads: 4,
  defaultWindow: 4096,
  defaultTheta: 1_000_000,
  defaultTied: true,
};

const GEMMA3_MULTIMODAL: Family = {
  ...GEMMA3,
  modelType: "gemma3",
  nested: true,
  assumed: { vocab_size: 262_208, num_attention_heads: 8, max_position_embeddings: 131_072 },
};

const SMOLLM3: Family = {
  ...LLAMA,
  modelType: "smollm3",
  windows: "per layer",
  rotations: "listed",
  defaultKvHeads: 4,
  defaultTheta: 2_000_000,
  defaultTied: true,
};

const GRANITE: Family = { ...LLAMA, modelType: "granite", scales: "granite" };

/** A supported value of `architectures` in `config.json`. */
export type Architecture =
  | "LlamaForCausalLM"
  | "MistralForCausalLM"
  | "Ministral3ForCausalLM"
  | "Qwen2ForCausalLM"
  | "Qwen3ForCausalLM"
  | "Phi3ForCausalLM"
  | "Qwen3MoeForCausalLM"
  | "Gemma3ForCausalLM"
  | "Gemma3ForConditionalGeneration"
  | "SmolLM3ForCausalLM"
  | "GraniteForCausalLM";

/** The family of each supported architecture. */
export const FAMILIES: Readonly<Record<Architecture, Family>> = {
  LlamaForCausalLM: LLAMA,
  MistralForCausalLM: MISTRAL,
  Ministral3ForCausalLM: MINISTRAL3,
  Qwen2ForCausalLM: QWEN2,
  Qwen3ForCausalLM: QWEN3,
  Phi3ForCausalLM: PHI3,
  Qwen3MoeForCausalLM: QWEN3_MOE,
  Gemma3ForCausalLM: GEMMA3,
  Gemma3ForConditionalGeneration: GEMMA3_MULTIMODAL,
  SmolLM3ForCausalLM: SMOLLM3,
  GraniteForCausalLM: GRANITE,
};

/** Whether an architecture is supported. */
export function isArchitecture(name: string): name is Architecture {
  return Object.hasOwn(FAMILIES, name);
}

/** The architecture of a `model_type`, or undefined if it is not supported. */
export function architectureOf(modelType: unknown): Architecture | undefined {
  return Object.keys(FAMILIES).filter(isArchitecture).find((name) => FAMILIES[name].modelType === modelType);
}
