import { FAMILIES } from "./architectures.ts";
import type { CheckpointTensor } from "./checkpoint.ts";
import type { ModelConfig } from "./config.ts";
import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import type { Notice } from "../types.ts";
import {
  isPlain,
  type PlainDType,
  storedDType,
  SUPPORTED_FORMATS,
  type WeightDType,
  weightDType,
  type WeightFormat,
} from "./weight_formats.ts";

export type { WeightDType } from "./weight_formats.ts";

/**
 * One tensor on the device, made of tensors of the checkpoint stacked by rows. Parts of different formats cannot be stacked: each run of
 * one format is then a tensor of its own, whose name ends in its number, as in `layers.0.qkv.weight/1`.
 */
export interface PlannedTensor {
  readonly name: string;
  /** Of each member, in a plan for a group of devices. */
  readonly shape: readonly number[];
  readonly dtype: WeightDType;
  readonly parts: readonly CheckpointTensor[];
  /** How the members of a group share the tensor. Default: each has all of it. */
  readonly split?: Split;
}

/**
 * The share of a member: the same part of every section of rows, the same part of the columns, or all for the first member and zeros for
 * the others.
 */
export type Split = { kind: "rows"; sections: readonly number[] } | { kind: "columns" } | { kind: "first" };

/** All tensors of a model by our names, and their size in bytes. */
export interface WeightPlan {
  readonly tensors: ReadonlyMap<string, PlannedTensor>;
  /** Of keys and values: the dtype of the embedding, and bf16 where that is quantised. */
  readonly dtype: PlainDType;
  /** What is ignored, and where the tensors contradict `config.json`. */
  readonly notices: readonly Notice[];
}

/** How {@link planWeights} plans, and speaks of tensors. */
export interface PlanOptions {
  /** What matrices are stored in. Default "auto": what the model has. */
  format?: WeightFormat;
  /** The name of a tensor in the files of the model, by the name of a Hugging Face checkpoint. Default: the same. */
  nameOf?: (name: string) => string;
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

/** Checkpoint names. */
interface Names {
  model: string;
  head: string;
}

/** Tables that old checkpoints contain and that follow from the config. */
const OLD_TABLES = /(rotary_emb\.inv_freq|\.masked_bias)$/;
/** What is computed from the config. */
const UNUSED = /\.rotary_emb\.\w+$|\.position_ids$/;
/** What the language model and its output projection are called, alone and as a part of a model that sees images. */
const ALONE: Names = { model: "model", head: "lm_head" };
const PARTS: readonly Names[] = [
  { model: "language_model.model", head: "language_model.lm_head" },
  { model: "model.language_model", head: "lm_head" },
];
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

function layerNorms({ hiddenSize, postNorms }: ModelConfig, ours: string, theirs: string): RequiredTensor[] {
  const names = postNorms
    ? {
      attention_norm: "input_layernorm",
      attention_post_norm: "post_attention_layernorm",
      mlp_norm: "pre_feedforward_layernorm",
      mlp_post_norm: "post_feedforward_layernorm",
    }
    : { attention_norm: "input_layernorm", mlp_norm: "post_attention_layernorm" };
  return Object.entries(names).map(([name, source]) => norm(`${ours}.${name}`, `${theirs}.${source}`, hiddenSize));
}

function layerTensors(config: ModelConfig, layer: number, { model }: Names): RequiredTensor[] {
  const ours = `layers.${layer}`;
  const theirs = `${model}.layers.${layer}`;
  const { intermediateSize, fusedProjections } = config;
  return [
    ...layerNorms(config, ours, theirs),
    ...attentionTensors(config, ours, theirs),
    ...(config.moe?.sparseLayers[layer]
      ? expertTensors(config, ours, `${theirs}.mlp`)
      : feedForwardTensors(config, ours, `${theirs}.mlp`, intermediateSize, fusedProjections)),
  ];
}

/**
 * Tied weights are one tensor under either name. Where the folder has both, both count, as in the transformers library: the
 * tensors have the last word.
 */
function requiredTensors(
  config: ModelConfig,
  found: ReadonlyMap<string, CheckpointTensor>,
  names: Names,
): RequiredTensor[] {
  const { vocabSize, hiddenSize, tieWordEmbeddings } = config;
  const ownEmbedding = `${names.model}.embed_tokens`;
  const [hasEmbedding, hasHead] = [ownEmbedding, names.head].map((name) => found.has(`${name}.weight`));
  const embedding = tieWordEmbeddings && hasHead && !hasEmbedding ? names.head : ownEmbedding;
  const isTied = tieWordEmbeddings && !(hasHead && hasEmbedding);
  return [
    ...linear("embedding", [[embedding, vocabSize]], hiddenSize, false),
    ...Array.from({ length: config.numLayers }, (_, layer) => layerTensors(config, layer, names)).flat(),
    norm("norm", `${names.model}.norm`, hiddenSize),
    ...(isTied ? [] : linear("logits", [[names.head, vocabSize]], hiddenSize, false)),
  ];
}

function namesIn({ architecture }: ModelConfig, found: ReadonlyMap<string, CheckpointTensor>): Names {
  if (!FAMILIES[architecture].nested) return ALONE;
  const present = PARTS.find(({ model }) => found.has(`${model}.norm.weight`));
  return present ?? { model: "language_model.model", head: "language_model.lm_head" };
}

function listNames(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_IN_MESSAGE).map((name) => `"${shorten(name, 200)}"`).join(", ");
  return names.length > NAMES_IN_MESSAGE ? `${shown} and ${names.length - NAMES_IN_MESSAGE} more` : shown;
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/** A part of a tensor that the model needs, and the dtype that it gets on the device. */
interface PlannedPart {
  part: CheckpointTensor;
  dtype: WeightDType;
}

function checkShape({ shape: expected }: Source, { name, shape }: CheckpointTensor): void {
  if (shapeText(shape) === shapeText(expected)) return;
  throw new PagesiftError(
    "model",
    `Tensor "${shorten(name)}" has shape ${shapeText(shape)}, but the config asks for ${shapeText(expected)}`,
  );
}

function planPart(name: string, source: Source, part: CheckpointTensor, format: WeightFormat): PlannedPart {
  const own = weightDType(part.dtype);
  if (own === undefined || (!isPlain(own) && part.shape.length < 2)) {
    throw new PagesiftError(
      "model",
      `Tensor "${shorten(part.name)}" has the format ${part.dtype}, which is not supported; expected ` +
        `${part.shape.length < 2 ? "F32, F16 or BF16" : SUPPORTED_FORMATS}`,
    );
  }
  checkShape(source, part);
  if (isPlain(own)) return { part, dtype: storedDType(name, part.shape, own, format) };
  if (format === "auto") return { part, dtype: own };
  const problem = `Tensor "${shorten(part.name)}" is quantised already (${part.dtype})`;
  throw new PagesiftError("usage", `${problem}; leave --weights ${format} out`);
}

/** Runs of parts with one dtype. */
function runsOf(parts: readonly PlannedPart[]): PlannedPart[][] {
  const runs: PlannedPart[][] = [];
  for (const part of parts) {
    const last = runs.at(-1);
    if (last?.[0]?.dtype === part.dtype) last.push(part);
    else runs.push([part]);
  }
  return runs;
}

function planTensor(
  { name, sources }: RequiredTensor,
  found: ReadonlyMap<string, CheckpointTensor>,
  format: WeightFormat,
): PlannedTensor[] {
  const parts = sources.flatMap((source) => {
    const part = found.get(source.name);
    return part ? [planPart(name, source, part, format)] : [];
  });
  const runs = runsOf(parts);
  if (runs.length > 1 && parts.some(({ part }) => part.shape.length < 2)) {
    const names = listNames(parts.map(({ part }) => part.name));
    throw new PagesiftError(
      "model",
      `Tensors ${names} have different formats, expected the same for all that are stacked`,
    );
  }
  return runs.map((run, index) => ({
    name: runs.length === 1 ? name : `${name}/${index}`,
    shape: [
      run.reduce((rows, { part }) => rows + (part.shape[0] ?? 0), 0),
      ...run[0]?.part.shape.slice(1) ?? [],
    ],
    dtype: run[0]?.dtype ?? "f32",
    parts: run.map(({ part }) => part),
  }));
}

function ignoredNotices({ architecture }: ModelConfig, names: readonly string[]): Notice[] {
  if (names.length === 0) return [];
  if (FAMILIES[architecture].nested) {
    return [{ level: "info", text: `Reads the language model only: ignored ${names.length} tensors of other parts` }];
  }
  const tensors = names.length === 1 ? "a tensor" : `${names.length} tensors`;
  return [{ level: "warning", text: `Ignored ${tensors} that ${architecture} does not use: ${listNames(names)}` }];
}

/** Rows that are no whole blocks cannot be quantised. */
function keptNotices(planned: readonly PlannedTensor[], format: WeightFormat): Notice[] {
  if (format === "auto" || format === "bf16") return [];
  const kept = planned.filter(({ name, shape, dtype }) =>
    shape.length > 1 && isPlain(dtype) && !name.endsWith(".router.weight")
  );
  if (kept.length === 0) return [];
  const names = listNames(kept.map(({ name }) => name));
  const text =
    `${kept.length} matrices keep their format, because their rows are no whole blocks of ${format}: ${names}`;
  return [{ level: "warning", text }];
}

/** What quantised weights are stored in, the most common format first. */
function formatNotices(planned: readonly PlannedTensor[]): Notice[] {
  if (planned.every(({ dtype }) => isPlain(dtype))) return [];
  const groups = [...Map.groupBy(planned.filter(({ shape }) => shape.length > 1), ({ dtype }) => dtype)];
  groups.sort(([, a], [, b]) => b.length - a.length);
  const counts = groups.map(([dtype, tensors]) => `${tensors.length} in ${dtype}`).join(", ");
  return [{ level: "info", text: `Weights: matrices ${counts}` }];
}

/** Listing what is missing would take all memory where a config asks for millions of experts that no file contains. */
function refuseFarTooFew({ numLayers, moe }: ModelConfig, numFound: number): void {
  const expertLayers = moe?.sparseLayers.filter(Boolean).length ?? 0;
  const required = 2 * numLayers + 3 * expertLayers * (moe?.numExperts ?? 0);
  if (required <= numFound || required < MANY_TENSORS) return;
  throw new PagesiftError(
    "model",
    `The model lacks tensors: it has ${numFound}, and its config asks for more than ${required}; ` +
      "download the model again",
  );
}

function kvDType(tensors: ReadonlyMap<string, PlannedTensor>): PlainDType {
  const dtype = tensors.get("embedding.weight")?.dtype ?? "f32";
  return isPlain(dtype) ? dtype : "bf16";
}

/**
 * Decides from the headers alone which tensors go to the device.
 *
 * @throws {PagesiftError} of kind "model" that lists what is missing, of another shape, or would change the result; of kind "usage" where
 * quantised weights should be quantised again
 */
export function planWeights(
  config: ModelConfig,
  found: ReadonlyMap<string, CheckpointTensor>,
  { format = "auto", nameOf = (name) => name }: PlanOptions = {},
): WeightPlan {
  refuseFarTooFew(config, found.size);
  const names = namesIn(config, found);
  const required = requiredTensors(config, found, names);
  const sources = new Set(required.flatMap((tensor) => tensor.sources.map((source) => source.name)));
  const missing = [...sources].filter((name) => !found.has(name)).map(nameOf);
  if (missing.length > 0) {
    throw new PagesiftError(
      "model",
      `The model lacks ${missing.length} tensors that its config asks for: ${listNames(missing)}`,
    );
  }
  const others = [...found].filter(([name]) => !sources.has(name) && !OLD_TABLES.test(name));
  const belongs = (name: string): boolean => Object.values(names).some((part) => name.startsWith(`${part}.`));
  const isIgnored = ([name, { bytes }]: [string, CheckpointTensor]): boolean =>
    bytes === 0 || UNUSED.test(name) || !belongs(name);
  const ignored = others.filter(isIgnored).map(([, { name }]) => name);
  const unknown = others.filter((entry) => !isIgnored(entry)).map(([, { name }]) => name);
  if (unknown.length > 0) {
    throw new PagesiftError(
      "model",
      `The model contains ${unknown.length} tensors that ${config.architecture} does not use: ${listNames(unknown)}`,
    );
  }
  const planned = required.flatMap((tensor) => planTensor(tensor, found, format));
  const tensors = new Map(planned.map((tensor) => [tensor.name, tensor]));
  const notices = [...ignoredNotices(config, ignored), ...keptNotices(planned, format), ...formatNotices(planned)];
  return { tensors, dtype: kvDType(tensors), notices };
}
