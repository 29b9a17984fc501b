import type { CheckpointTensor } from "./checkpoint.ts";
import type { ModelConfig } from "./config.ts";
import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import type { Notice } from "../types.ts";

/** A weight dtype that the operations read in place. */
export type WeightDType = "f32" | "f16" | "bf16";

/** One tensor on the device: tensors of the checkpoint, stacked by rows. */
export interface PlannedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: WeightDType;
  readonly parts: readonly CheckpointTensor[];
}

/** All tensors of a model by our names, and their size in bytes. */
export interface WeightPlan {
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** The dtype of the embedding, which the KV cache also uses. */
  readonly dtype: WeightDType;
  /** Tensors that are ignored, and contradictions between the tensors and `config.json`. */
  readonly notices: readonly Notice[];
}

/** A tensor of the checkpoint that the model needs. */
interface Source {
  name: string;
  shape: number[];
}

/** A tensor that the model requires: our name, and the tensors that are stacked to form it. */
interface RequiredTensor {
  name: string;
  sources: Source[];
}

const DTYPE_NAMES: Readonly<Record<string, WeightDType>> = { F32: "f32", F16: "f16", BF16: "bf16" };
/** Tables that old checkpoints contain and that follow from the config. */
const OLD_TABLES = /(rotary_emb\.inv_freq|\.masked_bias)$/;
/** What is computed from the config, or is no part of the forward pass: other tables, and heads beside the language model's. */
const UNUSED = /\.rotary_emb\.\w+$|\.position_ids$|^(?!model\.|lm_head\.)/;
const EMBEDDING = "model.embed_tokens";
const HEAD = "lm_head";
const NAMES_IN_MESSAGE = 8;
/** As many as a header may contain. */
const MANY_TENSORS = 100_000;

/** The checkpoint's name of a projection, and its rows. */
type Projection = [name: string, rows: number];

function linear(name: string, projections: Projection[], columns: number, bias: boolean): RequiredTensor[] {
  const weight: RequiredTensor = {
    name: `${name}.weight`,
    sources: projections.map(([source, rows]) => ({ name: `${source}.weight`, shape: [rows, columns] })),
  };
  if (!bias) return [weight];
  const sources = projections.map(([source, rows]) => ({ name: `${source}.bias`, shape: [rows] }));
  return [weight, { name: `${name}.bias`, sources }];
}

function norm(name: string, source: string, width: number): RequiredTensor {
  return { name: `${name}.weight`, sources: [{ name: `${source}.weight`, shape: [width] }] };
}

function attentionTensors(config: ModelConfig, ours: string, theirs: string): RequiredTensor[] {
  const { hiddenSize, headDim, attentionBias, qkNorm } = config;
  const [queryRows, keyRows] = [config.numQueryHeads * headDim, config.numKvHeads * headDim];
  const attention = `${theirs}.self_attn`;
  const projections: Projection[] = config.fusedProjections
    ? [[`${attention}.qkv_proj`, queryRows + 2 * keyRows]]
    : [[`${attention}.q_proj`, queryRows], [`${attention}.k_proj`, keyRows], [`${attention}.v_proj`, keyRows]];
  return [
    ...linear(`${ours}.qkv`, projections, hiddenSize, attentionBias.qkv),
    ...linear(`${ours}.output`, [[`${attention}.o_proj`, hiddenSize]], queryRows, attentionBias.output),
    ...(qkNorm ? ["q_norm", "k_norm"] : []).map((name) => norm(`${ours}.${name}`, `${attention}.${name}`, headDim)),
  ];
}

function feedForwardTensors(
  config: ModelConfig,
  ours: string,
  theirs: string,
  width: number,
  fused: boolean,
): RequiredTensor[] {
  const { hiddenSize, mlpBias } = config;
  const projections: Projection[] = fused
    ? [[`${theirs}.gate_up_proj`, 2 * width]]
    : [[`${theirs}.gate_proj`, width], [`${theirs}.up_proj`, width]];
  return [
    ...linear(`${ours}.gate_up`, projections, hiddenSize, mlpBias),
    ...linear(`${ours}.down`, [[`${theirs}.down_proj`, hiddenSize]], width, mlpBias),
  ];
}

function expertTensors(config: ModelConfig, ours: string, theirs: string): RequiredTensor[] {
  const { moe, hiddenSize } = config;
  if (!moe) return [];
  const experts = Array.from({ length: moe.numExperts }, (_, index) => index);
  return [
    ...linear(`${ours}.router`, [[`${theirs}.gate`, moe.numExperts]], hiddenSize, false),
    ...experts.flatMap((index) =>
      feedForwardTensors(config, `${ours}.experts.${index}`, `${theirs}.experts.${index}`, moe.intermediateSize, false)
    ),
  ];
}

function layerTensors(config: ModelConfig, layer: number): RequiredTensor[] {
  const ours = `layers.${layer}`;
  const theirs = `model.layers.${layer}`;
  const { hiddenSize, intermediateSize, fusedProjections } = config;
  return [
    norm(`${ours}.attention_norm`, `${theirs}.input_layernorm`, hiddenSize),
    ...attentionTensors(config, ours, theirs),
    norm(`${ours}.mlp_norm`, `${theirs}.post_attention_layernorm`, hiddenSize),
    ...(config.moe?.sparseLayers[layer]
      ? expertTensors(config, ours, `${theirs}.mlp`)
      : feedForwardTensors(config, ours, `${theirs}.mlp`, intermediateSize, fusedProjections)),
  ];
}

/**
 * Tied weights are one tensor under either name. Where the folder has both, both count, as in the transformers library: the
 * tensors have the last word.
 */
function requiredTensors(config: ModelConfig, found: ReadonlyMap<string, CheckpointTensor>): RequiredTensor[] {
  const { vocabSize, hiddenSize, tieWordEmbeddings } = config;
  const [hasEmbedding, hasHead] = [EMBEDDING, HEAD].map((name) => found.has(`${name}.weight`));
  const embedding = tieWordEmbeddings && hasHead && !hasEmbedding ? HEAD : EMBEDDING;
  const isTied = tieWordEmbeddings && !(hasHead && hasEmbedding);
  return [
    ...linear("embedding", [[embedding, vocabSize]], hiddenSize, false),
    ...Array.from({ length: config.numLayers }, (_, layer) => layerTensors(config, layer)).flat(),
    norm("norm", "model.norm", hiddenSize),
    ...(isTied ? [] : linear("logits", [[HEAD, vocabSize]], hiddenSize, false)),
  ];
}

function listNames(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_IN_MESSAGE).map((name) => `"${shorten(name, 200)}"`).join(", ");
  return names.length > NAMES_IN_MESSAGE ? `${shown} and ${names.length - NAMES_IN_MESSAGE} more` : shown;
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

function planTensor({ name, sources }: RequiredTensor, found: ReadonlyMap<string, CheckpointTensor>): PlannedTensor {
  const parts = sources.flatMap((source) => found.get(source.name) ?? []);
  const [first] = parts;
  const dtype = first && DTYPE_NAMES[first.dtype];
  if (!first || !dtype || parts.some((part) => part.dtype !== first.dtype)) {
    const dtypes = [...new Set(parts.map((part) => part.dtype))].join(", ");
    throw new PagesiftError(
      "model",
      `Tensor ${listNames(sources.map((source) => source.name))} has dtype ${dtypes}, ` +
        "expected F32, F16 or BF16, the same for all that are stacked",
    );
  }
  sources.forEach((source, index) => {
    const shape = parts[index]?.shape ?? [];
    if (shapeText(shape) === shapeText(source.shape)) return;
    throw new PagesiftError(
      "model",
      `Tensor "${source.name}" has shape ${shapeText(shape)}, but config.json requires ${shapeText(source.shape)}`,
    );
  });
  const rows = sources.reduce((sum, source) => sum + (source.shape[0] ?? 0), 0);
  return { name, shape: [rows, ...first.shape.slice(1)], dtype, parts };
}

function ignoredNotices({ architecture }: ModelConfig, names: readonly string[]): Notice[] {
  if (names.length === 0) return [];
  const tensors = names.length === 1 ? "a tensor" : `${names.length} tensors`;
  return [{ level: "warning", text: `Ignored ${tensors} that ${architecture} does not use: ${listNames(names)}` }];
}

/** A config can require millions of experts that no file contains; listing them would exhaust the memory. */
function refuseFarTooFew({ numLayers, moe }: ModelConfig, numFound: number): void {
  const expertLayers = moe?.sparseLayers.filter(Boolean).length ?? 0;
  const required = 2 * numLayers + 3 * expertLayers * (moe?.numExperts ?? 0);
  if (required <= numFound || required < MANY_TENSORS) return;
  throw new PagesiftError(
    "model",
    `The model folder lacks tensors: it has ${numFound}, and its config.json requires more than ${required}; ` +
      "download the model again",
  );
}

/**
 * Decides from the headers alone which tensors go to the device.
 *
 * @throws {PagesiftError} of kind "model" that lists tensors that are missing, have another shape, or would change the result
 */
export function planWeights(config: ModelConfig, found: ReadonlyMap<string, CheckpointTensor>): WeightPlan {
  refuseFarTooFew(config, found.size);
  const required = requiredTensors(config, found);
  const sources = new Set(required.flatMap((tensor) => tensor.sources.map((source) => source.name)));
  const missing = [...sources].filter((name) => !found.has(name));
  if (missing.length > 0) {
    throw new PagesiftError(
      "model",
      `The model folder lacks ${missing.length} tensors that its config.json requires: ${listNames(missing)}`,
    );
  }
  const others = [...found.values()].filter(({ name }) => !sources.has(name) && !OLD_TABLES.test(name));
  const isIgnored = ({ name, bytes }: CheckpointTensor): boolean => bytes === 0 || UNUSED.test(name);
  const ignored = others.filter(isIgnored).map(({ name }) => name);
  const unknown = others.filter((tensor) => !isIgnored(tensor)).map(({ name }) => name);
  if (unknown.length > 0) {
    throw new PagesiftError(
      "model",
      `The model folder contains ${unknown.length} tensors that ${config.architecture} does not use: ${
        listNames(unknown)
      }`,
    );
  }
  const tensors = new Map(required.map((tensor) => [tensor.name, planTensor(tensor, found)]));
  return { tensors, dtype: tensors.get("embedding.weight")?.dtype ?? "f32", notices: ignoredNotices(config, ignored) };
}
