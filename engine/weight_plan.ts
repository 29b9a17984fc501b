import type { CheckpointTensor } from "./checkpoint.ts";
import type { ModelConfig } from "./config.ts";
import { PagesiftError } from "./errors.ts";

/** A weight dtype that the operations read in place. */
export type WeightDType = "f32" | "f16" | "bf16";

/** One tensor on the device, made of tensors of the checkpoint stacked by rows. */
export interface PlannedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: WeightDType;
  readonly parts: readonly CheckpointTensor[];
}

/** Everything a model needs, by our names, and the bytes it takes. */
export interface WeightPlan {
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** The dtype of the embedding, which the KV cache takes too. */
  readonly dtype: WeightDType;
}

/** A tensor that we want: our name, the checkpoint's names, and their shape once stacked. */
interface Wanted {
  name: string;
  sources: string[];
  shape: number[];
}

const DTYPE_NAMES: Readonly<Record<string, WeightDType>> = { F32: "f32", F16: "f16", BF16: "bf16" };
/** Tensors that old checkpoints carry and nobody reads. */
const IGNORED = /(rotary_emb\.inv_freq|\.masked_bias)$/;
const NAMES_IN_MESSAGE = 8;

function linear(name: string, sources: string[], rows: number, columns: number, bias: boolean): Wanted[] {
  const wanted = [{
    name: `${name}.weight`,
    sources: sources.map((source) => `${source}.weight`),
    shape: [rows, columns],
  }];
  return bias
    ? [...wanted, { name: `${name}.bias`, sources: sources.map((source) => `${source}.bias`), shape: [rows] }]
    : wanted;
}

function attentionTensors(config: ModelConfig, ours: string, theirs: string): Wanted[] {
  const { hiddenSize, numQueryHeads, numKvHeads, headDim, attentionBias } = config;
  const projections = config.fusedProjections ? ["qkv_proj"] : ["q_proj", "k_proj", "v_proj"];
  const sources = projections.map((projection) => `${theirs}.self_attn.${projection}`);
  const norms = config.qkNorm ? ["q_norm", "k_norm"] : [];
  return [
    ...linear(`${ours}.qkv`, sources, (numQueryHeads + 2 * numKvHeads) * headDim, hiddenSize, attentionBias.qkv),
    ...linear(
      `${ours}.output`,
      [`${theirs}.self_attn.o_proj`],
      hiddenSize,
      numQueryHeads * headDim,
      attentionBias.output,
    ),
    ...norms.map((norm) => ({
      name: `${ours}.${norm}.weight`,
      sources: [`${theirs}.self_attn.${norm}.weight`],
      shape: [headDim],
    })),
  ];
}

function feedForwardTensors(
  config: ModelConfig,
  ours: string,
  theirs: string,
  width: number,
  fused: boolean,
): Wanted[] {
  const sources = fused ? ["gate_up_proj"] : ["gate_proj", "up_proj"];
  return [
    ...linear(
      `${ours}.gate_up`,
      sources.map((source) => `${theirs}.${source}`),
      2 * width,
      config.hiddenSize,
      config.mlpBias,
    ),
    ...linear(`${ours}.down`, [`${theirs}.down_proj`], config.hiddenSize, width, config.mlpBias),
  ];
}

function expertTensors(config: ModelConfig, ours: string, theirs: string): Wanted[] {
  const { moe, hiddenSize } = config;
  if (!moe) return [];
  const experts = Array.from({ length: moe.numExperts }, (_, index) => index);
  return [
    ...linear(`${ours}.router`, [`${theirs}.gate`], moe.numExperts, hiddenSize, false),
    ...experts.flatMap((index) =>
      feedForwardTensors(config, `${ours}.experts.${index}`, `${theirs}.experts.${index}`, moe.intermediateSize, false)
    ),
  ];
}

function layerTensors(config: ModelConfig, layer: number): Wanted[] {
  const ours = `layers.${layer}`;
  const theirs = `model.layers.${layer}`;
  const sparse = config.moe?.sparseLayers[layer] === true;
  return [
    {
      name: `${ours}.attention_norm.weight`,
      sources: [`${theirs}.input_layernorm.weight`],
      shape: [config.hiddenSize],
    },
    ...attentionTensors(config, ours, theirs),
    {
      name: `${ours}.mlp_norm.weight`,
      sources: [`${theirs}.post_attention_layernorm.weight`],
      shape: [config.hiddenSize],
    },
    ...(sparse
      ? expertTensors(config, ours, `${theirs}.mlp`)
      : feedForwardTensors(config, ours, `${theirs}.mlp`, config.intermediateSize, config.fusedProjections)),
  ];
}

function wantedTensors(config: ModelConfig): Wanted[] {
  const { vocabSize, hiddenSize } = config;
  return [
    { name: "embedding.weight", sources: ["model.embed_tokens.weight"], shape: [vocabSize, hiddenSize] },
    ...Array.from({ length: config.numLayers }, (_, layer) => layerTensors(config, layer)).flat(),
    { name: "norm.weight", sources: ["model.norm.weight"], shape: [hiddenSize] },
    ...(config.tieWordEmbeddings ? [] : linear("logits", ["lm_head"], vocabSize, hiddenSize, false)),
  ];
}

function listNames(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_IN_MESSAGE).map((name) => `"${name}"`).join(", ");
  return names.length > NAMES_IN_MESSAGE ? `${shown} and ${names.length - NAMES_IN_MESSAGE} more` : shown;
}

function planTensor(wanted: Wanted, found: ReadonlyMap<string, CheckpointTensor>): PlannedTensor {
  const parts = wanted.sources.flatMap((source) => found.get(source) ?? []);
  const [first] = parts;
  const dtype = first && DTYPE_NAMES[first.dtype];
  if (!first || !dtype || parts.some((part) => part.dtype !== first.dtype)) {
    const dtypes = [...new Set(parts.map((part) => part.dtype))].join(", ");
    throw new PagesiftError(
      "model",
      `Tensor "${wanted.sources[0]}" has dtype ${dtypes}, wanted one of F32, F16, BF16 for all its parts`,
    );
  }
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] ?? 0), 0);
  const fits = rows === wanted.shape[0] &&
    parts.every((part) => part.shape.length === wanted.shape.length && part.shape[1] === wanted.shape[1]);
  if (!fits) {
    const shapes = parts.map((part) => `[${part.shape.join(", ")}]`).join(" + ");
    throw new PagesiftError(
      "model",
      `Tensor ${listNames(wanted.sources)} has shape ${shapes}, but config.json asks for [${
        wanted.shape.join(", ")
      }] in all`,
    );
  }
  return { name: wanted.name, shape: wanted.shape, dtype, parts };
}

/**
 * Decides from the headers alone which tensors go to the device.
 *
 * @throws {PagesiftError} of kind "model" that lists what is missing, unknown, or of another shape
 */
export function planWeights(config: ModelConfig, found: ReadonlyMap<string, CheckpointTensor>): WeightPlan {
  const wanted = wantedTensors(config);
  const sources = new Set(wanted.flatMap((tensor) => tensor.sources));
  const missing = [...sources].filter((name) => !found.has(name));
  if (missing.length > 0) {
    throw new PagesiftError(
      "model",
      `The model folder lacks ${missing.length} tensors that its config.json asks for: ${listNames(missing)}`,
    );
  }
  const tied = config.tieWordEmbeddings ? ["lm_head.weight"] : [];
  const unknown = [...found.keys()].filter((name) => !sources.has(name) && !IGNORED.test(name) && !tied.includes(name));
  if (unknown.length > 0) {
    throw new PagesiftError(
      "model",
      `The model folder holds ${unknown.length} tensors that ${config.architecture} does not use: ${
        listNames(unknown)
      }`,
    );
  }
  const tensors = new Map(wanted.map((tensor) => [tensor.name, planTensor(tensor, found)]));
  return { tensors, dtype: tensors.get("embedding.weight")?.dtype ?? "f32" };
}
