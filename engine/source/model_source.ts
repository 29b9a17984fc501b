import { join } from "@std/path";
import { PagesiftError } from "../errors.ts";
import { readAdapter } from "../folder/adapter.ts";
import type { ModelTensors } from "../folder/checkpoint.ts";
import type { GenerationConfig, ModelConfig } from "../folder/config.ts";
import { statOrUndefined } from "../folder/json_file.ts";
import type { ModelSparsity } from "../folder/sparsity_file.ts";
import type { Tokenizer, TokenizerOptions } from "../text/tokenizer.ts";
import { AdaptedSource } from "./adapted_source.ts";
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
  /** Names and places of the tensors. */
  tensors(): Promise<ModelTensors>;
  /** With the chat template, where there is one. */
  tokenizer(options?: TokenizerOptions): Promise<Tokenizer>;
}

/**
 * Reads what a Hugging Face folder or a GGUF file says of its model, without its weights. A split GGUF model is given by its first part.
 * `adapter` is a folder with a LoRA adapter that is merged into the weights while they load.
 *
 * @throws {PagesiftError} of kind "model"
 */
export async function openModelSource(path: string, adapter?: string): Promise<ModelSource> {
  const source = await openBase(path);
  return adapter === undefined ? source : new AdaptedSource(source, await readAdapter(adapter));
}

async function openBase(path: string): Promise<ModelSource> {
  const info = await statOrUndefined(path);
  if (info?.isDirectory === false) return await GgufSource.open(path);
  if (info !== undefined) await refuseGgufFolder(path);
  return await FolderSource.open(path);
}

/** Says what to give instead of a folder that contains GGUF files only. */
async function refuseGgufFolder(folder: string): Promise<void> {
  const names = (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
  const file = names.find((name) => name.endsWith(".gguf"));
  if (file === undefined || names.includes("config.json")) return;
  throw new PagesiftError(
    "model",
    `No "config.json" in "${folder}"; give the GGUF file itself, as in "${join(folder, file)}"`,
  );
}
