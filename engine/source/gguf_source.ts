import type { CheckpointTensor, ModelTensors } from "../folder/checkpoint.ts";
import type { GenerationConfig, ModelConfig } from "../folder/config.ts";
import { parseSampling } from "../folder/generation_config.ts";
import { ConfigFields } from "../folder/config_fields.ts";
import { parseJsonObject } from "../folder/json_file.ts";
import { ggufConfig, ggufFamily } from "../gguf/config.ts";
import type { GgufHeader } from "../gguf/header.ts";
import { readGgufModel } from "../gguf/split.ts";
import { ggufTensorName, huggingFaceTensors } from "../gguf/tensors.ts";
import { ggufEndTokens, ggufTokenizer } from "../gguf/tokenizer.ts";
import { type ModelSparsity, parseSparsity } from "../folder/sparsity_file.ts";
import type { Tokenizer, TokenizerOptions } from "../text/tokenizer.ts";
import type { ModelSource } from "./model_source.ts";

/** The contents of `sparsity.json` as text, which a converted model keeps. */
export const SPARSITY_FIELD = "pagesift.sparsity";

/** Fields of `generation_config.json`, and of the metadata. */
const SAMPLING_FIELDS: Readonly<Record<string, string>> = {
  temperature: "general.sampling.temp",
  top_k: "general.sampling.top_k",
  top_p: "general.sampling.top_p",
  min_p: "general.sampling.min_p",
  repetition_penalty: "general.sampling.penalty_repeat",
};

/** A GGUF file, or the first part of a split one. */
export class GgufSource implements ModelSource {
  private constructor(
    readonly path: string,
    readonly config: ModelConfig,
    readonly generation: GenerationConfig,
    readonly sparsity: ModelSparsity | undefined,
    readonly header: GgufHeader,
    readonly found: ReadonlyMap<string, CheckpointTensor>,
  ) {}

  /** @throws {PagesiftError} of kind "model" */
  static async open(file: string): Promise<GgufSource> {
    const { header, tensors } = await readGgufModel(file);
    const config = ggufConfig(header, tensors);
    const { eosTokenIds, ...bos } = ggufEndTokens(header);
    const found = huggingFaceTensors(tensors, config, ggufFamily(header).family);
    const generation = { eosTokenIds, ...samplingOf(header) };
    return new GgufSource(file, { ...config, ...bos }, generation, sparsityOf(header), header, found);
  }

  tensors(): Promise<ModelTensors> {
    const { family } = ggufFamily(this.header);
    return Promise.resolve({ tensors: this.found, notices: [], nameOf: (name) => ggufTensorName(name, family) });
  }

  tokenizer(options?: TokenizerOptions): Promise<Tokenizer> {
    return Promise.resolve(ggufTokenizer(this.header, options));
  }
}

/** Sampling values of the metadata, under the names of `generation_config.json`. */
function samplingOf({ metadata, file }: GgufHeader): Pick<GenerationConfig, "sampling" | "notices"> {
  const entries = Object.entries(SAMPLING_FIELDS).map(([theirs, ours]) => [theirs, metadata.get(ours)] as const);
  const found = entries.filter(([, value]) => value !== undefined);
  const label = (name: string): string => SAMPLING_FIELDS[name] ?? name;
  return parseSampling(new ConfigFields({ ...Object.fromEntries(found), do_sample: found.length > 0 }, file, label));
}

function sparsityOf({ metadata, file }: GgufHeader): ModelSparsity | undefined {
  const text = new ConfigFields(Object.fromEntries(metadata), file).text(SPARSITY_FIELD, "");
  const origin = `${file}: ${SPARSITY_FIELD}`;
  return text === "" ? undefined : parseSparsity(parseJsonObject(text, origin), origin);
}
