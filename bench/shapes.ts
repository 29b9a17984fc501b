/** Model shapes that can be measured without a checkpoint. */
import { type ModelConfig, parseModelConfig } from "../engine/folder/config.ts";
import type { PlannedTensor, WeightPlan } from "../engine/folder/weight_plan.ts";
import { storedDType, WEIGHT_FORMATS } from "../engine/folder/weight_formats.ts";
import { usageError } from "./lists.ts";

interface Shape {
  architecture: string;
  layers: number;
  hidden: number;
  intermediate: number;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
  vocabulary: number;
  /** The output projection is the embedding. */
  tied: boolean;
}

const SHAPES: Readonly<Record<string, Shape>> = {
  "qwen3-8b": {
    architecture: "Qwen3ForCausalLM",
    ...{ layers: 36, hidden: 4096, intermediate: 12288, queryHeads: 32, kvHeads: 8, headDim: 128 },
    ...{ vocabulary: 151_936, tied: false },
  },
  "qwen3-0.6b": {
    architecture: "Qwen3ForCausalLM",
    ...{ layers: 28, hidden: 1024, intermediate: 3072, queryHeads: 16, kvHeads: 8, headDim: 128 },
    ...{ vocabulary: 151_936, tied: true },
  },
  "llama-3.2-1b": {
    architecture: "LlamaForCausalLM",
    ...{ layers: 16, hidden: 2048, intermediate: 8192, queryHeads: 32, kvHeads: 8, headDim: 64 },
    ...{ vocabulary: 128_256, tied: true },
  },
  "llama-3.3-70b": {
    architecture: "LlamaForCausalLM",
    ...{ layers: 80, hidden: 8192, intermediate: 28672, queryHeads: 64, kvHeads: 8, headDim: 128 },
    ...{ vocabulary: 128_256, tied: false },
  },
  default: {
    architecture: "Qwen3ForCausalLM",
    ...{ layers: 8, hidden: 256, intermediate: 768, queryHeads: 8, kvHeads: 2, headDim: 64 },
    ...{ vocabulary: 4096, tied: true },
  },
};

/** Formats of random weights: also those that nothing is quantised to. */
export const SHAPE_FORMATS = [...WEIGHT_FORMATS, "q4_k", "q5_k", "q6_k"] as const;
export type ShapeFormat = (typeof SHAPE_FORMATS)[number];

export const SHAPE_NAMES: readonly string[] = Object.keys(SHAPES);

/** The config of a shape with the requested context. @throws {PagesiftError} of kind "usage" */
export function configOf(name: string, maxContext: number): ModelConfig {
  const shape = SHAPES[name];
  if (!shape) throw usageError(`--shape is "${name}", expected one of ${SHAPE_NAMES.join(", ")}`);
  const json = {
    architectures: [shape.architecture],
    model_type: shape.architecture.startsWith("Qwen3") ? "qwen3" : "llama",
    ...{ num_hidden_layers: shape.layers, hidden_size: shape.hidden, intermediate_size: shape.intermediate },
    ...{ num_attention_heads: shape.queryHeads, num_key_value_heads: shape.kvHeads, head_dim: shape.headDim },
    ...{ vocab_size: shape.vocabulary, tie_word_embeddings: shape.tied, max_position_embeddings: maxContext },
    ...{ hidden_act: "silu", rms_norm_eps: 1e-6, rope_theta: 1e6, eos_token_id: 0, torch_dtype: "bfloat16" },
  };
  return parseModelConfig(json, `shape ${name}`);
}

/** The tensors of a model without experts and biases, which no file contains. */
export function planShape(config: ModelConfig, format: ShapeFormat = "auto"): WeightPlan {
  const { hiddenSize, intermediateSize, numQueryHeads, numKvHeads, headDim, vocabSize } = config;
  const layer: [string, number[]][] = [
    ["attention_norm", [hiddenSize]],
    ["qkv", [(numQueryHeads + 2 * numKvHeads) * headDim, hiddenSize]],
    ["output", [hiddenSize, numQueryHeads * headDim]],
    ...(config.qkNorm ? ["q_norm", "k_norm"] : []).map((name): [string, number[]] => [name, [headDim]]),
    ["mlp_norm", [hiddenSize]],
    ["gate_up", [2 * intermediateSize, hiddenSize]],
    ["down", [hiddenSize, intermediateSize]],
  ];
  const all: [string, number[]][] = [
    ["embedding", [vocabSize, hiddenSize]],
    ...config.slidingWindows.flatMap((_, index) =>
      layer.map(([name, shape]): [string, number[]] => [`layers.${index}.${name}`, shape])
    ),
    ["norm", [hiddenSize]],
    ...(config.tieWordEmbeddings ? [] : [["logits", [vocabSize, hiddenSize]] as [string, number[]]]),
  ];
  const tensors = all.map(([name, shape]): [string, PlannedTensor] => [
    `${name}.weight`,
    { name: `${name}.weight`, shape, dtype: storedDType(`${name}.weight`, shape, "bf16", format), parts: [] },
  ]);
  return { tensors: new Map(tensors), dtype: "bf16", notices: [] };
}
