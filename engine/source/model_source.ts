import type { Checkpoint } from "../folder/checkpoint.ts";
import type { GenerationConfig, ModelConfig } from "../folder/config.ts";
import { statOrUndefined } from "../folder/json_file.ts";
import type { ModelSparsity } from "../folder/sparsity_file.ts";
import type { Tokenizer, TokenizerOptions } from "../text/tokenizer.ts";
import { FolderSource } from "./folder_source.ts";
import { GgufSource } from "./gguf_source.ts";

/** Where a model comes from. Nothing else in the engine knows what kind of file it was read from. */
export interface ModelSource {
  /** Folder or file. */
  readonly path: string;
  readonly config: ModelConfig;
  readonly generation: GenerationConfig;
  /** How the model was trained to be read sparsely; undefined where nothing says so. */
  readonly sparsity: ModelSparsity | undefined;
  /** Names and places of the tensors by the names of a Hugging Face checkpoint, and what is ignored. */
  tensors(): Promise<Pick<Checkpoint, "tensors" | "notices">>;
  /** With the chat template, where there is one. */
  tokenizer(options?: TokenizerOptions): Promise<Tokenizer>;
}

/**
 * Reads what a Hugging Face folder or a GGUF file says of its model, without its weights. A split GGUF model is given by its first part.
 *
 * @throws {PagesiftError} of kind "model"
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  const info = await statOrUndefined(path);
  return info?.isDirectory === false ? await GgufSource.open(path) : await FolderSource.open(path);
}
