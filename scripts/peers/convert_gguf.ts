/**
 * Converts a Hugging Face folder to GGUF for llama.cpp, with the same weights: matrices byte for byte, vectors widened to f32, rows of q
 * and k reordered where llama.cpp requires it. Families: Llama, Mistral without a sliding window, Qwen2, Qwen3.
 *
 *     deno run -A scripts/peers/convert_gguf.ts [MODEL_DIR] [-o FILE.gguf] [--widen]
 *
 * --widen writes all numbers in f32.
 */
import { parseArgs } from "@std/cli/parse-args";
import { basename, fromFileUrl, join, resolve } from "@std/path";
import { openCheckpoint } from "../../engine/folder/checkpoint.ts";
import { readModelConfig } from "../../engine/folder/config.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { readJsonFile } from "../../engine/folder/json_file.ts";
import { SPARSITY_FIELD } from "../../engine/source/gguf_source.ts";
import { log, print } from "../output.ts";
import { type MetaValue, writeGguf } from "./gguf/file.ts";
import { architectureOf, modelMetadata } from "./gguf/metadata.ts";
import { mainType, planTensors, type TensorOptions } from "./gguf/tensors.ts";
import { tokenizerMetadata } from "./gguf/tokenizer.ts";

/** The result of a conversion. */
export interface Converted {
  path: string;
  bytes: number;
  tensors: number;
  architecture: string;
  /** What the tokenizer lacks, if anything. */
  missing?: string;
}

/** Writes the model of a folder as a GGUF file. @throws {PagesiftError} if llama.cpp would compute something else */
export async function convertGguf(folder: string, path: string, options: TensorOptions = {}): Promise<Converted> {
  const config = await readModelConfig(folder);
  const architecture = architectureOf(config);
  const tensors = planTensors(config, architecture, (await openCheckpoint(folder)).tensors, options);
  const metadata = modelMetadata(config, architecture, basename(resolve(folder)), mainType(tensors));
  const { fields, missing } = await tokenizerMetadata(folder, config);
  const sparsity = await sparsityField(folder);
  const bytes = writeGguf(path, new Map([...metadata, ...fields, ...sparsity]), tensors);
  return { path, bytes, tensors: tensors.length, architecture, ...(missing ? { missing } : {}) };
}

/** How the model was trained to be read sparsely, which llama.cpp passes over. */
async function sparsityField(folder: string): Promise<[string, MetaValue][]> {
  const json = await readJsonFile(join(folder, "sparsity.json"));
  return json ? [[SPARSITY_FIELD, { text: JSON.stringify(json) }]] : [];
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["output"], boolean: ["widen"], alias: { output: "o" } });
  const folder = String(flags._[0] ?? fromFileUrl(new URL("../../models/default", import.meta.url)));
  const path = String(flags["output"] ?? `${basename(resolve(folder))}.gguf`);
  try {
    const made = await convertGguf(folder, path, { widen: flags["widen"] === true });
    if (made.missing) log(made.missing);
    print(`${path}: ${made.architecture}, ${made.tensors} tensors, ${(made.bytes / 1e6).toFixed(1)} MB`);
  } catch (error) {
    if (!(error instanceof PagesiftError)) throw error;
    log(error.message);
    Deno.exit(3);
  }
}

if (import.meta.main) await main();
