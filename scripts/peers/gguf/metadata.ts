/** A model's config as GGUF metadata. */
import type { Architecture } from "../../../engine/folder/architectures.ts";
import type { ModelConfig } from "../../../engine/folder/config.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { rotaryDimOf } from "../../../engine/folder/rope.ts";
import type { GgmlType, MetaValue } from "./file.ts";

/** llama.cpp's names of the families that we convert. */
const ARCHITECTURES = {
  LlamaForCausalLM: "llama",
  MistralForCausalLM: "llama",
  Qwen2ForCausalLM: "qwen2",
  Qwen3ForCausalLM: "qwen3",
  Qwen3MoeForCausalLM: "qwen3moe",
  Phi3ForCausalLM: "phi3",
  Gemma3ForCausalLM: "gemma3",
  SmolLM3ForCausalLM: "smollm3",
  GraniteForCausalLM: "granite",
} as const satisfies Partial<Record<Architecture, string>>;

export type GgufArchitecture = typeof ARCHITECTURES[keyof typeof ARCHITECTURES];

/** `general.file_type`. */
const FILE_TYPES: Readonly<Record<GgmlType, number>> = { F32: 0, F16: 1, BF16: 32 };
const YARN_BETAS = { betaFast: 32, betaSlow: 1 };

function refuse(problem: string): never {
  throw new PagesiftError("model", `Cannot convert to GGUF: ${problem}`);
}

/** llama.cpp's name of the model's family. @throws {PagesiftError} if llama.cpp would compute something else */
export function architectureOf(config: ModelConfig): GgufArchitecture {
  const { architecture } = config;
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    refuse(`${architecture} is none of ${Object.keys(ARCHITECTURES).join(", ")}`);
  }
  const name = ARCHITECTURES[architecture as keyof typeof ARCHITECTURES];
  const slides = config.slidingWindows.some((window) => window > 0 && window < config.maxContext);
  if (name === "gemma3") checkGemma(config);
  if (name !== "gemma3" && slides) {
    refuse(`llama.cpp's "${name}" attends to everything, this model has sliding windows`);
  }
  if (config.rope.positionBeta !== 0) refuse("queries that grow with their position are unknown to llama.cpp");
  if (config.rope.type === "longrope") refuse("the conversion knows no longrope");
  if (config.rope.type === "llama3" && name !== "llama") refuse(`llama.cpp's "${name}" has no llama3 rotation`);
  if (name.startsWith("qwen3") && config.attentionBias.qkv) refuse(`llama.cpp's "${name}" has no biases`);
  if (config.moe && !(config.moe.normTopkProb && config.moe.sparseLayers.every(Boolean))) {
    refuse(`llama.cpp's "${name}" has experts in all layers, with shares that sum to 1`);
  }
  return name;
}

/** Layers without a window, which llama.cpp takes for granted. */
const GEMMA_PATTERN = 6;

function checkGemma({ slidingWindows, scales, headDim }: ModelConfig): void {
  if (slidingWindows.some((window, layer) => window === 0 !== ((layer + 1) % GEMMA_PATTERN === 0))) {
    refuse(`llama.cpp's "gemma3" has no window in every ${GEMMA_PATTERN}th layer and only there`);
  }
  if (scales.attention !== 1 / Math.sqrt(headDim)) refuse('llama.cpp\'s "gemma3" scales queries by the size of a head');
}

function yarn(rope: ModelConfig["rope"] & { type: "yarn" }, maxContext: number): Record<string, MetaValue> {
  const original = rope.originalMaxContext ?? maxContext;
  const isPlain = rope.attentionFactor === undefined && !rope.mscale && !rope.mscaleAllDim && rope.truncate &&
    rope.betaFast === YARN_BETAS.betaFast && rope.betaSlow === YARN_BETAS.betaSlow;
  if (!isPlain) refuse("GGUF can only express yarn with the usual constants");
  return {
    "rope.scaling.type": { text: "yarn" },
    "rope.scaling.factor": { f32: rope.factor ?? maxContext / original },
    "rope.scaling.original_context_length": { u32: original },
  };
}

function ropeFields({ rope, headDim, maxContext }: ModelConfig): Record<string, MetaValue> {
  const plain: Record<string, MetaValue> = {
    "rope.freq_base": { f32: rope.theta },
    "rope.dimension_count": { u32: rotaryDimOf(rope, headDim) },
  };
  if (rope.type === "yarn") return { ...plain, ...yarn(rope, maxContext) };
  if (rope.type !== "linear") return plain; // llama3 stores its factors in a tensor
  return { ...plain, "rope.scaling.type": { text: "linear" }, "rope.scaling.factor": { f32: rope.factor } };
}

function familyFields({ architecture, slidingWindows, localRope, scales }: ModelConfig): Record<string, MetaValue> {
  if (architecture === "Gemma3ForCausalLM") {
    return {
      "attention.sliding_window": { u32: Math.max(...slidingWindows) },
      ...localRope && { "rope.freq_base_swa": { f32: localRope.theta } },
    };
  }
  if (architecture !== "GraniteForCausalLM") return {};
  return {
    "embedding_scale": { f32: scales.embedding },
    "attention.scale": { f32: scales.attention },
    "residual_scale": { f32: scales.residual },
    "logit_scale": { f32: 1 / scales.logits },
  };
}

function expertFields({ moe }: ModelConfig): Record<string, MetaValue> {
  if (!moe) return {};
  return {
    "expert_count": { u32: moe.numExperts },
    "expert_used_count": { u32: moe.numExpertsPerToken },
    "expert_feed_forward_length": { u32: moe.intermediateSize },
  };
}

/** What llama.cpp reads before the tensors, the tokenizer left out. */
export function modelMetadata(
  config: ModelConfig,
  architecture: GgufArchitecture,
  name: string,
  type: GgmlType,
): Map<string, MetaValue> {
  const fields: Record<string, MetaValue> = {
    "block_count": { u32: config.numLayers },
    "context_length": { u32: config.maxContext },
    "embedding_length": { u32: config.hiddenSize },
    "feed_forward_length": { u32: config.intermediateSize },
    "attention.head_count": { u32: config.numQueryHeads },
    "attention.head_count_kv": { u32: config.numKvHeads },
    "attention.key_length": { u32: config.headDim },
    "attention.value_length": { u32: config.headDim },
    "attention.layer_norm_rms_epsilon": { f32: config.rmsNormEps },
    "vocab_size": { u32: config.vocabSize },
    ...ropeFields(config),
    ...expertFields(config),
    ...familyFields(config),
  };
  return new Map<string, MetaValue>([
    ["general.architecture", { text: architecture }],
    ["general.name", { text: name }],
    ["general.file_type", { u32: FILE_TYPES[type] }],
    ...Object.entries(fields).map(([key, value]): [string, MetaValue] => [`${architecture}.${key}`, value]),
  ]);
}
