import { join } from "@std/path";
import { type Architecture, architectureOf, FAMILIES, type Family, isArchitecture } from "./architectures.ts";
import { ConfigFields, present, type Range } from "./config_fields.ts";
import { PagesiftError } from "../errors.ts";
import { isJsonObject, readJsonFile, shorten } from "./json_file.ts";
import { type LayerRotation, layerRotations, unrotatedLayers } from "./layer_rotations.ts";
import { parseQuantization, type Quantization } from "./quantization.ts";
import { type RopeConfig, rotaryDimOf } from "./rope.ts";
import { parseLocalRope, parseRope } from "./rope_config.ts";
import { parseWindow } from "./sliding_windows.ts";

export { type GenerationConfig, readGenerationConfig } from "./generation_config.ts";

/** A model as its `config.json` describes it: checked, complete and frozen. */
export interface ModelConfig {
  /** Name of the architecture in the transformers library. */
  readonly architecture: Architecture;
  /** V, rows of the embedding. */
  readonly vocabSize: number;
  /** H, width of the hidden state. */
  readonly hiddenSize: number;
  /** Width of the feed-forward block. */
  readonly intermediateSize: number;
  /** Decoder layers. */
  readonly numLayers: number;
  /** Hq. */
  readonly numQueryHeads: number;
  /** Hk, a divisor of `numQueryHeads`. */
  readonly numKvHeads: number;
  /** d, a multiple of 16. */
  readonly headDim: number;
  /** Longest sequence in tokens. */
  readonly maxContext: number;
  /** Added to the mean square in RMS norms. */
  readonly rmsNormEps: number;
  /** Whether the output projection is the embedding, unless the tensors say otherwise. */
  readonly tieWordEmbeddings: boolean;
  /** `gelu_tanh` is the tanh form of gelu. */
  readonly hiddenAct: "silu" | "gelu_tanh";
  /** Whether the projections of attention have biases. */
  readonly attentionBias: { readonly qkv: boolean; readonly output: boolean };
  /** Whether the projections of the feed-forward block have biases. */
  readonly mlpBias: boolean;
  /** Added to the stored weights of all norms. */
  readonly normOffset: 0 | 1;
  /** Whether the output of attention and of the feed-forward block is normalized before it is added to the hidden state. */
  readonly postNorms: boolean;
  /** Factors of parts of the forward pass. */
  readonly scales: ModelScales;
  /** Whether queries and keys are normalized, each head by itself, before the rotation. */
  readonly qkNorm: boolean;
  /** Whether q, k and v are one tensor, and gate and up another. */
  readonly fusedProjections: boolean;
  /** `[numLayers]`: latest tokens that a layer attends to, the current one included; 0 is all. */
  readonly slidingWindows: readonly number[];
  /**
   * Rotary position embedding.
   *
   * @internal
   */
  readonly rope: RopeConfig;
  /**
   * The rotation of layers that are `local`, where there are any.
   *
   * @internal
   */
  readonly localRope?: RopeConfig;
  /** Which rotation each layer has. `[numLayers]` */
  readonly rotations: readonly LayerRotation[];
  /** Tokens that end a generation. */
  readonly eosTokenIds: readonly number[];
  /** The token at the beginning of a text, if the model has one. */
  readonly bosTokenId?: number;
  /** Present if the model has experts. */
  readonly moe?: MoeConfig;
}

/** Factors of parts of the forward pass; 1 leaves a part as it is. */
export interface ModelScales {
  /** Of embedding rows. */
  readonly embedding: number;
  /** Whether `embedding` is rounded to the dtype of 16-bit embedding weights. */
  readonly roundsEmbedding: boolean;
  /** Of the products of queries and keys. */
  readonly attention: number;
  /** Of the output of attention and of the feed-forward block. */
  readonly residual: number;
  /** Of the logits. */
  readonly logits: number;
}

/** A mixture of experts in place of the feed-forward block. */
export interface MoeConfig {
  /** Experts per layer. */
  readonly numExperts: number;
  /** Experts that each token passes through. */
  readonly numExpertsPerToken: number;
  /** Width of one expert. */
  readonly intermediateSize: number;
  /** Whether the weights of the selected experts are scaled to sum to 1. */
  readonly normTopkProb: boolean;
  /** `[numLayers]`: whether a layer has experts instead of the plain block. */
  readonly sparseLayers: readonly boolean[];
}

const VOCABULARY: Range = { min: 1, max: 10_000_000 };
const WIDTH: Range = { min: 1, max: 1_000_000 };
const LAYERS: Range = { min: 1, max: 1000 };
const HEADS: Range = { min: 1, max: 4096 };
/** The range that the native kernels support. */
const HEAD_DIM: Range = { min: 16, max: 512 };
const CONTEXT: Range = { min: 1, max: 1_000_000_000 };
const EPSILON: Range = { min: 0, max: 1 };
const SCALE: Range = { min: 1e-6, max: 1e6 };
const EXPERTS: Range = { min: 1, max: 4096 };

/** Reads `config.json` of a model folder. @throws {PagesiftError} of kind "model" that names the field and the expected values */
export async function readModelConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, "config.json");
  const json = await readJsonFile(file);
  if (json !== undefined) return parseModelConfig(json, file);
  throw new PagesiftError("model", `No "config.json" in "${folder}"; expected a Hugging Face model folder`);
}

/** How `config.json` of a model folder says that weights are quantised; undefined where they are not. Throws "model" errors. */
export async function readQuantization(folder: string): Promise<Quantization | undefined> {
  const file = join(folder, "config.json");
  return parseQuantization(new ConfigFields(await readJsonFile(file) ?? {}, file));
}

/** Checks a parsed `config.json`; `file`, and `label` for the names of its fields, are for messages only. */
export function parseModelConfig(json: unknown, file: string, label?: (name: string) => string): ModelConfig {
  if (!isJsonObject(json)) throw new PagesiftError("model", `Cannot read "${file}": expected a JSON object`);
  const whole = new ConfigFields(json, file, label);
  const architecture = parseArchitecture(whole);
  parseQuantization(whole); // refuses methods that are not supported before any weight is read
  const family: Family = FAMILIES[architecture];
  const fields = languageModelFields(whole, family);
  refuseUnsupported(fields, family);
  const numLayers = fields.count("num_hidden_layers", LAYERS);
  const maxContext = fields.count("max_position_embeddings", CONTEXT);
  const heads = parseHeads(fields, family);
  const unrotated = unrotatedLayers(fields, family, numLayers);
  const { size, slides } = parseWindow(fields, family, maxContext, unrotated);
  const rotations = layerRotations(family, slides, unrotated);
  return deepFreeze<ModelConfig>({
    architecture,
    vocabSize: fields.count("vocab_size", VOCABULARY),
    intermediateSize: fields.count("intermediate_size", WIDTH),
    numLayers,
    ...heads,
    maxContext,
    rmsNormEps: fields.number("rms_norm_eps", EPSILON, family.defaultRmsNormEps),
    tieWordEmbeddings: fields.flag("tie_word_embeddings", family.defaultTied),
    hiddenAct: parseActivation(fields, family),
    ...parseBiases(fields, family),
    normOffset: family.normOffset,
    postNorms: family.postNorms,
    scales: parseScales(fields, family, heads),
    qkNorm: family.qkNorm,
    fusedProjections: family.fusedProjections,
    slidingWindows: slides.map((isLocal) => isLocal ? size : 0),
    rotations,
    eosTokenIds: fields.tokenIds("eos_token_id"),
    ...present({
      localRope: rotations.includes("local") ? parseLocalRope(fields, heads.rope) : undefined,
      bosTokenId: fields.tokenIds("bos_token_id")[0],
      moe: family.moe ? parseMoe(fields, numLayers) : undefined,
    }),
  });
}

/** The config with a smaller context, if one is requested. @throws {PagesiftError} of kind "usage" */
export function limitContext(config: ModelConfig, maxContext: number | undefined): ModelConfig {
  if (maxContext === undefined) return config;
  if (!Number.isSafeInteger(maxContext) || maxContext < 1 || maxContext > config.maxContext) {
    throw new PagesiftError(
      "usage",
      `Context is ${maxContext} tokens, expected a whole number from 1 to ${config.maxContext}, the limit of the model`,
    );
  }
  return { ...config, maxContext };
}

function parseArchitecture(fields: ConfigFields): Architecture {
  const names = fields.list("architectures", "a list of names", (item) => typeof item === "string");
  // The transformers library reads the model type, so a file may lack the architectures.
  const name = names.length > 0 ? names.find(isArchitecture) : architectureOf(fields.json["model_type"]);
  if (name !== undefined) return name;
  const found = names.length === 0 ? "No architecture" : `Architecture "${shorten(names.join(", "))}" is not supported`;
  const supported = Object.keys(FAMILIES).join(", ");
  throw new PagesiftError("model", `${found} in "${fields.file}"; expected one of ${supported}`);
}

/** The fields of the language model; the tokens and the tied weights are those of the model as a whole. */
function languageModelFields(whole: ConfigFields, { nested, assumed }: Family): ConfigFields {
  if (!nested) return whole;
  const shared = ["eos_token_id", "bos_token_id", "tie_word_embeddings"].filter((name) => whole.has(name));
  return new ConfigFields({
    ...assumed,
    ...whole.object("text_config").json,
    ...Object.fromEntries(shared.map((name) => [name, whole.json[name]])),
  }, whole.file);
}

function refuseUnsupported(fields: ConfigFields, { unsupported }: Family): void {
  for (const name of unsupported) if (fields.json[name]) fields.refuse(name, "null or false");
}

type Heads = Pick<ModelConfig, "hiddenSize" | "numQueryHeads" | "numKvHeads" | "headDim" | "rope">;

function parseHeads(fields: ConfigFields, family: Family): Heads {
  const hiddenSize = fields.count("hidden_size", WIDTH);
  const numQueryHeads = fields.count("num_attention_heads", HEADS);
  const defaultKvHeads = fields.json["num_key_value_heads"] === null ? undefined : family.defaultKvHeads;
  const numKvHeads = fields.count("num_key_value_heads", HEADS, defaultKvHeads ?? numQueryHeads);
  if (numQueryHeads % numKvHeads !== 0) {
    fields.refuse("num_attention_heads", `a multiple of "num_key_value_heads" (${numKvHeads})`);
  }
  const headDim = parseHeadDim(fields, family.defaultHeadDim, hiddenSize, numQueryHeads);
  const rope = parseRope(fields, family, headDim);
  const rotaryDim = rotaryDimOf(rope, headDim);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    fields.refuse("partial_rotary_factor", `a share of "head_dim" (${headDim}) that is an even number of dimensions`);
  }
  return { hiddenSize, numQueryHeads, numKvHeads, headDim, rope };
}

function parseHeadDim(fields: ConfigFields, fallback: number | undefined, hiddenSize: number, heads: number): number {
  const named = fields.has("head_dim") || fallback !== undefined;
  if (!named && hiddenSize % heads !== 0) {
    fields.refuse("hidden_size", `a multiple of "num_attention_heads" (${heads})`);
  }
  const headDim = named ? fields.count("head_dim", HEAD_DIM, fallback) : hiddenSize / heads;
  if (headDim % 16 === 0 && headDim <= HEAD_DIM.max) return headDim;
  const expected = `a multiple of 16 from ${HEAD_DIM.min} to ${HEAD_DIM.max}`;
  if (named) fields.refuse("head_dim", expected);
  const derived = `"hidden_size" / "num_attention_heads" of "${fields.file}" must be ${expected}, found ${headDim}`;
  throw new PagesiftError("model", `Head size ${derived}`);
}

function parseActivation(fields: ConfigFields, { activation }: Family): ModelConfig["hiddenAct"] {
  if (activation === "gelu_tanh") {
    const name = fields.text("hidden_activation", "gelu_pytorch_tanh");
    return name === "gelu_pytorch_tanh" ? activation : fields.refuse("hidden_activation", '"gelu_pytorch_tanh"');
  }
  const name = fields.text("hidden_act", "silu");
  return name === "silu" || name === "swish" ? "silu" : fields.refuse("hidden_act", '"silu"');
}

function parseScales(fields: ConfigFields, { scales }: Family, { hiddenSize, headDim }: Heads): ModelScales {
  const plain = { embedding: 1, roundsEmbedding: false, attention: 1 / Math.sqrt(headDim), residual: 1, logits: 1 };
  switch (scales) {
    case "none":
      return plain;
    case "gemma": {
      const attention = 1 / Math.sqrt(fields.number("query_pre_attn_scalar", SCALE, 256));
      return { ...plain, embedding: Math.sqrt(hiddenSize), roundsEmbedding: true, attention };
    }
    case "granite":
      return {
        ...plain,
        embedding: fields.number("embedding_multiplier", SCALE, 1),
        attention: fields.number("attention_multiplier", SCALE, 1),
        residual: fields.number("residual_multiplier", SCALE, 1),
        logits: 1 / fields.number("logits_scaling", SCALE, 1),
      };
  }
}

function parseBiases(fields: ConfigFields, family: Family): Pick<ModelConfig, "attentionBias" | "mlpBias"> {
  const output = family.attentionBias === "field" && fields.flag("attention_bias", false);
  const mlpBias = family.mlpBiasField && fields.flag("mlp_bias", false);
  return { attentionBias: { qkv: output || family.attentionBias === "qkv", output }, mlpBias };
}

function parseMoe(fields: ConfigFields, numLayers: number): MoeConfig {
  const numExperts = fields.count(fields.has("num_experts") ? "num_experts" : "num_local_experts", EXPERTS);
  const step = fields.count("decoder_sparse_step", LAYERS, 1);
  const isLayer = (item: unknown): item is number => Number.isInteger(item);
  const dense = new Set(fields.list("mlp_only_layers", "a list of layer numbers", isLayer));
  return {
    numExperts,
    numExpertsPerToken: fields.count("num_experts_per_tok", { min: 1, max: numExperts }),
    intermediateSize: fields.count("moe_intermediate_size", WIDTH),
    normTopkProb: fields.flag("norm_topk_prob", false),
    sparseLayers: Array.from({ length: numLayers }, (_, layer) => !dense.has(layer) && (layer + 1) % step === 0),
  };
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null) deepFreeze(inner);
  }
  return Object.freeze(value);
}
