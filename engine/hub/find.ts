import { join } from "@std/path";
import { PagesiftError } from "../errors.ts";
import { CachedModel, cacheFolder, type Environment, onCache } from "./cache.ts";
import { HubClient, type HubModel } from "./client.ts";
import { type Download, downloadFile, type DownloadProgress } from "./download.ts";
import { isJsonObject, readJsonFile, shorten, statOrUndefined } from "../folder/json_file.ts";
import { chooseGguf, isGgufName } from "./gguf_files.ts";
import { StallGuard } from "./stall_guard.ts";

export type { DownloadProgress };

/** How {@link findModelFolder} looks for a model. */
export interface FindModelOptions {
  /** Never downloads; `HF_HUB_OFFLINE` has the same effect. Default false. */
  offline?: boolean;
  /** Branch, tag or commit of a Hub model. Default `main`. */
  revision?: string;
  /**
   * Environment variables: `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN`, `XDG_CACHE_HOME`, `HOME`. Default:
   * those of this process.
   */
  env?: Environment;
  /** Sends requests. Default: the global `fetch`. */
  fetch?: typeof fetch;
  /** Called as bytes of a file arrive. */
  onProgress?: (progress: DownloadProgress) => void;
  /** Ends a download; the next call resumes it. The promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Seconds to wait for more bytes before the download fails. Default 60. */
  stallSeconds?: number;
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SMALL_FILE =
  /^((config|generation_config|sparsity|special_tokens_map|tokenizer[\w.-]*)\.json|chat_template\.jinja)$/;
const MODEL_WEIGHTS = /^model(-\d+-of-\d+)?\.safetensors$/;
const WEIGHTS = /^[\w-][\w.-]*\.safetensors$/;
const WEIGHT_INDEX = /^[\w-][\w.-]*\.safetensors\.index\.json$/;

/**
 * The path of a model. A folder or a `*.gguf` file is returned unchanged. A Hub name is looked up in the Hugging Face cache, and downloaded
 * if the cache does not contain the whole model: `org/name` is a folder, or the only GGUF file of a repository without safetensors;
 * `org/name:Q4_K_M` and `org/name:file.gguf` are GGUF files.
 *
 * ```ts
 * import { defaultModelFolder, findModelFolder } from "@pagesift/pagesift";
 *
 * const folder = await findModelFolder(defaultModelFolder()); // or a Hub name such as "org/name"
 * ```
 *
 * @throws {PagesiftError} of kind "model" for a name that is neither, "network" when the download or the cache fails, "usage" for an
 * invalid revision
 */
export async function findModelFolder(nameOrPath: string, options: FindModelOptions = {}): Promise<string> {
  const info = await statOrUndefined(nameOrPath);
  if (info?.isDirectory || (info?.isFile && isGgufName(nameOrPath))) return nameOrPath;
  const hub = parseHubName(nameOrPath);
  if (info !== undefined || hub === undefined) {
    const problem = info === undefined
      ? `No model folder or file "${shorten(nameOrPath)}"`
      : `"${nameOrPath}" is not a folder and not a *.gguf file`;
    throw new PagesiftError(
      "model",
      `${problem}; expected a folder with a config.json, a *.gguf file, or a Hub name such as "org/name" or "org/name:Q4_K_M"`,
    );
  }
  const revision = checkRevision(options.revision ?? "main");
  const env = options.env ?? processEnvironment();
  const cache = cacheFolder(env);
  const model = new CachedModel(cache, hub.id);
  return await onCache(cache, async () => {
    const snapshot = await model.findSnapshot(revision);
    const cached = snapshot === undefined ? undefined : await findWhole(snapshot, hub);
    if (cached !== undefined) return cached;
    if (isOffline(options.offline, env)) throw offlineError(hub, revision, cache);
    return await download(hub, revision, model, { ...options, env });
  });
}

const VARIABLES = ["HF_HUB_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "XDG_CACHE_HOME", "HOME"];

function processEnvironment(): Environment {
  return Object.fromEntries(VARIABLES.map((name) => [name, Deno.env.get(name)]));
}

/** A repository, and which of its GGUF files. */
interface HubName {
  id: string;
  /** A format or a file; undefined takes safetensors, else the only GGUF file. */
  file: string | undefined;
}

function parseHubName(name: string): HubName | undefined {
  const [, id, file] = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?::([\w-][\w./-]*))?$/.exec(name) ?? [];
  if (id === undefined || name.length > 300 || /\.\.|--/.test(id) || file?.includes("..")) return undefined;
  return { id, file };
}

/** Refuses a revision that is not a safe path below `refs`. */
function checkRevision(revision: string): string {
  if (/^\w[\w.-]*(\/\w[\w.-]*)*$/.test(revision)) return revision;
  throw new PagesiftError("usage", `Revision "${shorten(revision)}" must be the name of a branch or tag, or a commit`);
}

/** The model in a snapshot, where it is whole: the snapshot's folder, or the first GGUF file. */
async function findWhole(snapshot: string, { id, file }: HubName): Promise<string | undefined> {
  if (file === undefined && await isComplete(snapshot)) return snapshot;
  const names = await listFiles(snapshot);
  if (!names.some(isGgufName) || (file === undefined && names.includes("config.json"))) return undefined;
  try {
    const [first] = chooseGguf(names, file, id);
    return first && join(snapshot, first);
  } catch (error) {
    if (error instanceof PagesiftError) return undefined; // the Hub may have what the cache lacks
    throw error;
  }
}

/** Files of a snapshot that are there, and those of the folders in it. */
async function listFiles(snapshot: string, folder = ""): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(join(snapshot, folder))) {
    const path = folder === "" ? name : `${folder}/${name}`;
    const info = await statOrUndefined(join(snapshot, path));
    if (info?.isFile) names.push(path);
    else if (info?.isDirectory && folder === "") names.push(...await listFiles(snapshot, path));
  }
  return names;
}

/** Programs cache single files too, so a snapshot may lack what a model needs. */
async function isComplete(folder: string): Promise<boolean> {
  const required = ["config.json", "tokenizer.json"];
  const hasAll = await statOrUndefined(join(folder, SINGLE)) !== undefined;
  const index = hasAll ? undefined : await readJsonFile(join(folder, INDEX));
  if (index !== undefined) {
    const map = isJsonObject(index["weight_map"]) ? index["weight_map"] : {};
    required.push(...new Set(Object.values(map).map(String)));
  } else if (!await hasWeights(folder)) return false;
  const found = await Promise.all(required.map((name) => statOrUndefined(join(folder, name))));
  return found.every((info) => info !== undefined);
}

async function hasWeights(folder: string): Promise<boolean> {
  for await (const { name } of Deno.readDir(folder)) {
    if (WEIGHTS.test(name) && await statOrUndefined(join(folder, name)) !== undefined) return true;
  }
  return false;
}

function isOffline(offline: boolean | undefined, env: Environment): boolean {
  return offline === true || /^(1|on|yes|true)$/i.test(env["HF_HUB_OFFLINE"] ?? "");
}

function offlineError({ id, file }: HubName, revision: string, cache: string): PagesiftError {
  const name = file === undefined ? id : `${id}:${file}`;
  const problem =
    `Model "${name}" at revision "${revision}" is incomplete in the cache "${cache}", and downloads are off`;
  const wanted = file === undefined ? "" : isGgufName(file) ? ` ${file}` : ` --include "*${file}*"`;
  const advice = `run without --offline and HF_HUB_OFFLINE, or run \`hf download ${id}${wanted}\` on a network`;
  return new PagesiftError("network", `${problem}; ${advice}`);
}

async function download(
  { id, file }: HubName,
  revision: string,
  model: CachedModel,
  { env, signal, onProgress, fetch = globalThis.fetch, stallSeconds = 60 }: FindModelOptions & { env: Environment },
): Promise<string> {
  const endpoint = env["HF_ENDPOINT"] || "https://huggingface.co";
  const client = new HubClient({ endpoint, token: env["HF_TOKEN"] || undefined, fetch }, id);
  const { commit, files } = await describe(client, revision, stallSeconds, signal);
  const shared: Download = { client, model, commit, stallSeconds, signal, onProgress };
  const isGguf = file !== undefined || (!files.some((name) => WEIGHTS.test(name)) && files.some(isGgufName));
  const chosen = isGguf ? chooseGguf(files, file, id) : chooseFiles(files, id);
  for (const name of chosen) await downloadFile(shared, name);
  await model.writeRef(revision, commit);
  const snapshot = model.snapshotPath(commit);
  return isGguf ? join(snapshot, chosen[0] ?? "") : snapshot;
}

async function describe(
  client: HubClient,
  revision: string,
  stallSeconds: number,
  signal?: AbortSignal,
): Promise<HubModel> {
  using guard = new StallGuard(stallSeconds, signal);
  return await client.model(revision, guard);
}

/** Small files first, then the index, then weights: a snapshot with all its weights is complete. */
function chooseFiles(files: readonly string[], id: string): string[] {
  const single = files.filter((file) => file === SINGLE);
  const named = single.length > 0 ? single : files.filter((file) => MODEL_WEIGHTS.test(file));
  // Some models contain their weights twice: in one file and in shards, or in the layout of another program.
  const weights = named.length > 0 ? named : files.filter((file) => WEIGHTS.test(file));
  if (weights.length === 0 || !files.includes("config.json")) {
    throw new PagesiftError(
      "model",
      `Model "${id}" on the Hub has no config.json with *.safetensors and no GGUF file; choose another one`,
    );
  }
  const indexes = single.length > 0 ? [] : files.filter((file) => WEIGHT_INDEX.test(file));
  return [...files.filter((file) => SMALL_FILE.test(file)), ...indexes, ...weights];
}
