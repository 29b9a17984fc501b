import { basename, join } from "@std/path";
import { PagesiftError, reasonOf } from "../errors.ts";
import type { WeightChange } from "./adapter.ts";
import { isJsonObject, readJsonFile, refuseLinkOut, shorten, statOrUndefined } from "./json_file.ts";
import type { Notice } from "../types.ts";
import { readSafetensorsHeader, type TensorEntry, type TensorPlace } from "./safetensors.ts";

/** A tensor of a model and the file that contains it. */
export interface CheckpointTensor extends TensorPlace {
  /** As the file names it. */
  readonly dtype: string;
  /** Outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** Where the rows are made of what the file has; `dtype` and `shape` say what comes of it. Default: the rows as they are. */
  readonly storage?: InterleavedStorage | F8Storage | PackedStorage;
  /** What an adapter adds; `dtype` is that of the sum. */
  readonly change?: WeightChange;
}

/** Rows of q or k of a rotation of neighbouring dimensions: row 2i + j of a head is ours i + j d / 2. */
export interface InterleavedStorage {
  readonly kind: "interleaved";
  /** Numbers of a head, d. */
  readonly headDim: number;
}

/** 8-bit floats `[N, K]` with scales for 128 by 128 numbers, for a row or for all. */
export interface F8Storage {
  readonly kind: "f8";
  readonly scales: CheckpointTensor;
}

/** 4-bit integers, eight in one of 32 bits, with a scale and a zero point for each group along K. */
export interface PackedStorage {
  readonly kind: "awq" | "gptq";
  /** `[K / groupSize, N]` */
  readonly scales: CheckpointTensor;
  /** `[K / groupSize, N / 8]` */
  readonly zeros: CheckpointTensor;
  readonly groupSize: number;
  /** What is added to zero points as they are stored. */
  readonly zeroOffset: number;
  /** The group of each column, `[K]`. */
  readonly order?: CheckpointTensor;
}

/** All tensors of a model. */
export interface ModelTensors {
  /** By the names of a Hugging Face checkpoint. */
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** What is ignored. */
  readonly notices: readonly Notice[];
  /** The name in the model's own files of a tensor that they should contain. Default: the same. */
  readonly nameOf?: (name: string) => string;
}

/** All tensors of a model folder. */
export interface Checkpoint extends ModelTensors {
  readonly folder: string;
  /** Of all tensors. */
  readonly totalBytes: number;
}

const INDEX = "model.safetensors.index.json";
const SINGLE = "model.safetensors";
const STALE_INDEX: Notice = {
  level: "warning",
  text: `Ignored "${INDEX}": the folder has all weights in "${SINGLE}", and the index names other files`,
};
const NAMES_IN_MESSAGE = 10;

/**
 * Finds the weight files of a folder and reads their headers: `model.safetensors`, else the files of
 * `model.safetensors.index.json`, else the only `*.safetensors` file; the order is that of the transformers library. Throws
 * "model" errors that list every file or tensor at fault.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const indexFile = join(folder, INDEX);
  const hasSingle = await exists(join(folder, SINGLE));
  const index = hasSingle ? undefined : await readJsonFile(indexFile);
  const tensors = index === undefined
    ? await readShards(folder, [hasSingle ? SINGLE : await findSingleFile(folder)])
    : await readIndexed(folder, indexFile, index["weight_map"]);
  let totalBytes = 0;
  for (const { bytes } of tensors.values()) totalBytes += bytes;
  const notices = hasSingle && await isStale(indexFile) ? [STALE_INDEX] : [];
  return { folder, tensors, totalBytes, notices };
}

/** Whether an index beside a whole file of weights names other files, or cannot be read. */
async function isStale(indexFile: string): Promise<boolean> {
  if (!await exists(indexFile)) return false;
  try {
    const claimed = parseWeightMap((await readJsonFile(indexFile))?.["weight_map"], indexFile);
    return [...claimed.values()].some((file) => file !== SINGLE);
  } catch (error) {
    if (error instanceof PagesiftError) return true;
    throw error;
  }
}

/** A link counts, also one to nothing, so that it is refused and not passed over. */
async function exists(path: string): Promise<boolean> {
  return await statOrUndefined(path, Deno.lstat) !== undefined;
}

async function findSingleFile(folder: string): Promise<string> {
  const names = await listNames(folder);
  const found = names.filter((name) => name.endsWith(".safetensors"));
  if (found.length === 1) return found[0]!;
  const looked = `"${INDEX}", "${SINGLE}" or a single "*.safetensors" file`;
  if (found.length > 1) throw modelError(`Expected ${looked} in "${folder}", found ${listed(found)}`);
  const others = names.filter((name) => /\.(bin|gguf|pth|pt)$/.test(name));
  const gguf = others.find((name) => name.endsWith(".gguf"));
  const advice = gguf === undefined
    ? "convert the weights to safetensors"
    : `give the file itself, "${join(folder, gguf)}"`;
  const hint = others.length > 0 ? `, only ${listed(others)}; ${advice}` : "";
  throw modelError(`No weights in "${folder}": expected ${looked}${hint}`);
}

async function listNames(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder), (entry) => entry.name)).sort();
  } catch (error) {
    throw modelError(`Cannot read folder "${folder}": ${reasonOf(error)}`);
  }
}

async function readIndexed(folder: string, indexFile: string, weightMap: unknown): Promise<Map<string, TensorEntry>> {
  const claimed = parseWeightMap(weightMap, indexFile);
  const shards = [...new Set(claimed.values())].sort();
  await refuseMissing(folder, shards, indexFile);
  const tensors = await readShards(folder, shards);
  const wrong = [...claimed].filter(([name, shard]) => basename(tensors.get(name)?.file ?? "") !== shard);
  if (wrong.length > 0) {
    const names = wrong.map(([name, shard]) => `${name} (${shard})`);
    throw modelError(`Tensors of "${indexFile}" are not in their files: ${listed(names)}; download the model again`);
  }
  const extra = [...tensors.keys()].filter((name) => !claimed.has(name));
  if (extra.length === 0) return tensors;
  throw modelError(
    `Tensors are missing in "${indexFile}" but are in its files: ${listed(extra)}; fetch a matching index`,
  );
}

/** Tensor name to file name. File names are plain: a path would let an index read outside its folder. */
function parseWeightMap(weightMap: unknown, indexFile: string): Map<string, string> {
  if (!isJsonObject(weightMap)) throw modelError(`Field "weight_map" of "${indexFile}" must be an object`);
  const claimed = new Map<string, string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard === "string" && isPlainName(shard)) claimed.set(name, shard);
    else {
      const found = typeof shard === "string" ? `"${shorten(shard)}"` : "no string";
      throw modelError(
        `File of "${shorten(name)}" in "${indexFile}" must be a plain *.safetensors name, found ${found}`,
      );
    }
  }
  if (claimed.size === 0) throw modelError(`Field "weight_map" of "${indexFile}" names no tensor`);
  return claimed;
}

function isPlainName(name: string): boolean {
  // deno-lint-ignore no-control-regex
  return /^[^/\\:\u0000-\u001f]+\.safetensors$/.test(name) && !name.startsWith(".");
}

async function refuseMissing(folder: string, shards: readonly string[], indexFile: string): Promise<void> {
  const found = await Promise.all(shards.map((shard) => statOrUndefined(join(folder, shard))));
  const missing = shards.filter((_, i) => found[i] === undefined);
  if (missing.length === 0) return;
  throw modelError(`Files of "${indexFile}" are missing: ${listed(missing)}; download the model again`);
}

async function readShards(folder: string, shards: readonly string[]): Promise<Map<string, TensorEntry>> {
  const tensors = new Map<string, TensorEntry>();
  const twice: string[] = [];
  for (const shard of shards) {
    await refuseLinkOut(join(folder, shard));
    for (const [name, entry] of (await readSafetensorsHeader(join(folder, shard))).tensors) {
      const other = tensors.get(name);
      if (other !== undefined) twice.push(`${name} (${basename(other.file)}, ${shard})`);
      tensors.set(name, entry);
    }
  }
  if (twice.length === 0) return tensors;
  throw modelError(`Tensors are in two files of "${folder}": ${listed(twice)}; download the model again`);
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_IN_MESSAGE).map((name) => shorten(name, 200)).join(", ");
  const more = names.length - NAMES_IN_MESSAGE;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

function modelError(message: string): PagesiftError {
  return new PagesiftError("model", message);
}
