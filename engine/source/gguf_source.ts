import type { CheckpointTensor, ModelTensors } from "../folder/checkpoint.ts";
import type { GenerationConfig, ModelConfig } from "../folder/config.ts";
import { ggufConfig, ggufFamily } from "../gguf/config.ts";
import type { GgufHeader } from "../gguf/header.ts";
import { readGgufModel } from "../gguf/split.ts";
import { ggufTensorName, huggingFaceTensors } from "../gguf/tensors.ts";
import { ggufEndTokens, ggufTokenizer } from "../gguf/tokenizer.ts";
import type { Tokenizer, TokenizerOptions } from "../text/tokenizer.ts";
import type { ModelSource } from "./model_source.ts";

/** A GGUF file, or the first part of a split one. */
export class GgufSource implements ModelSource {
  readonly sparsity = undefined;

  private constructor(
    readonly path: string,
    readonly config: ModelConfig,
    readonly generation: GenerationConfig,
    readonly header: GgufHeader,
    readonly found: ReadonlyMap<string, CheckpointTensor>,
  ) {}

  /** @throws {PagesiftError} of kind "model" */
  static async open(file: string): Promise<GgufSource> {
    const { header, tensors } = await readGgufModel(file);
    const config = ggufConfig(header, tensors);
    const { eosTokenIds, ...bos } = ggufEndTokens(header);
    const found = huggingFaceTensors(tensors, config, ggufFamily(header).family);
    return new GgufSource(file, { ...config, ...bos }, { eosTokenIds, sampling: {}, notices: [] }, header, found);
  }

  tensors(): Promise<ModelTensors> {
    const { family } = ggufFamily(this.header);
    return Promise.resolve({ tensors: this.found, notices: [], nameOf: (name) => ggufTensorName(name, family) });
  }

  tokenizer(options?: TokenizerOptions): Promise<Tokenizer> {
    return Promise.resolve(ggufTokenizer(this.header, options));
  }
}
