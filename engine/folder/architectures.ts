/** Which layers have the sliding window of `config.json`: none, all, all if a flag is set, or those that it lists. */
export type WindowRule = "none" | "all" | "flagged" | "per layer";

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
}

const LLAMA: Family = {
  modelType: "llama",
  attentionBias: "field",
  mlpBiasField: true,
  qkNorm: false,
  fusedProjections: false,
  windows: "none",
  moe: false,
  positionScaling: false,
  defaultRmsNormEps: 1e-6,
  defaultHeadDim: undefined,
  defaultKvHeads: undefined,
  defaultWindow: undefined,
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

/** A supported value of `architectures` in `config.json`. */
export type Architecture =
  | "LlamaForCausalLM"
  | "MistralForCausalLM"
  | "Ministral3ForCausalLM"
  | "Qwen2ForCausalLM"
  | "Qwen3ForCausalLM"
  | "Phi3ForCausalLM"
  | "Qwen3MoeForCausalLM";

/** The family of each supported architecture. */
export const FAMILIES: Readonly<Record<Architecture, Family>> = {
  LlamaForCausalLM: LLAMA,
  MistralForCausalLM: MISTRAL,
  Ministral3ForCausalLM: MINISTRAL3,
  Qwen2ForCausalLM: QWEN2,
  Qwen3ForCausalLM: QWEN3,
  Phi3ForCausalLM: PHI3,
  Qwen3MoeForCausalLM: QWEN3_MOE,
};

/** Whether an architecture is supported. */
export function isArchitecture(name: string): name is Architecture {
  return Object.hasOwn(FAMILIES, name);
}

/** The architecture of a `model_type`, or undefined if it is not supported. */
export function architectureOf(modelType: unknown): Architecture | undefined {
  return Object.keys(FAMILIES).filter(isArchitecture).find((name) => FAMILIES[name].modelType === modelType);
}
