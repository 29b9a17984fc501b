import { type ModelTensors, openCheckpoint } from "../folder/checkpoint.ts";
import {
  type GenerationConfig,
  type ModelConfig,
  readGenerationConfig,
  readModelConfig,
  readQuantization,
} from "../folder/config.ts";
import { withQuantization } from "../folder/quantization.ts";
import { type ModelSparsity, readSparsity } from "../folder/sparsity_file.ts";
import { Tokenizer, type TokenizerOptions } from "../text/tokenizer.ts";
import type { ModelSource } from "./model_source.ts";

/** A Hugging Face model folder. */
export class FolderSource implements ModelSource {
  private constructor(
    readonly path: string,
    readonly config: ModelConfig,
    readonly generation: GenerationConfig,
    readonly sparsity: ModelSparsity | undefined,
  ) {}

  /** @throws {PagesiftError} of kind "model" */
  static async open(folder: string): Promise<FolderSource> {
    const config = await readModelConfig(folder);
    const generation = await readGenerationConfig(folder);
    return new FolderSource(folder, config, generation, await readSparsity(folder));
  }

  async tensors(): Promise<ModelTensors> {
    const { tensors, notices } = await openCheckpoint(this.path);
    return { tensors: withQuantization(tensors, await readQuantization(this.path)), notices };
  }

  tokenizer(options?: TokenizerOptions): Promise<Tokenizer> {
    return Tokenizer.load(this.path, options);
  }
}
