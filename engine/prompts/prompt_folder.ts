/** The folder of saved prompts: one file per chunk, named by its key. */
import { join } from "@std/path";
import { PagesiftError, reasonOf } from "../errors.ts";
import { FACTS_BYTES, factsOf } from "./chunk_file.ts";
import { removeIfThere, TEMPORARY } from "./files.ts";

const EXTENSION = ".safetensors";
/** A temporary file of this age belongs to a process that ended before it could rename it. */
const STALE_MS = 3600_000;

/** Prompts of one model that begin alike. */
export interface SavedPrompt {
  model: string;
  /** Tokens of the longest of them. */
  tokens: number;
  chunks: number;
  bytes: number;
  lastUsed: Date;
}

/** The folder by the convention of the platform. @throws {PagesiftError} of kind "usage" without a home folder */
export function defaultPromptFolder(env: (name: string) => string | undefined, os = Deno.build.os): string {
  const home = env("HOME");
  const caches = os === "windows"
    ? env("LOCALAPPDATA")
    : os === "darwin"
    ? home && join(home, "Library", "Caches")
    : env("XDG_CACHE_HOME") || home && join(home, ".cache");
  if (caches) return join(caches, "pagesift", "prompts");
  throw new PagesiftError("usage", "No home folder for saved prompts; pass one as --prompt-cache=DIR");
}

/** Where the chunk with this key lies. */
export function chunkPath(folder: string, key: string): string {
  return join(folder, key + EXTENSION);
}

/** Creates the folder, which only its owner can read. @throws {PagesiftError} of kind "usage" */
export async function openPromptFolder(folder: string): Promise<void> {
  try {
    await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new PagesiftError(
      "usage",
      `Cannot use "${folder}" for saved prompts: ${reasonOf(error)}; choose another folder`,
      {
        cause: error,
      },
    );
  }
}

interface StoredFile {
  path: string;
  bytes: number;
  /** Milliseconds since 1970. */
  used: number;
}

/** Files of the folder that end like this. A file that another process removes meanwhile is left out. */
async function files(folder: string, extension: string): Promise<StoredFile[]> {
  const found: StoredFile[] = [];
  try {
    for await (const { name, isFile } of Deno.readDir(folder)) {
      if (!isFile || !name.endsWith(extension)) continue;
      const path = join(folder, name);
      try {
        const { size, mtime } = Deno.statSync(path);
        found.push({ path, bytes: size, used: mtime?.getTime() ?? 0 });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found;
}

/** Marks chunks as used now, in the order of the prompt: a later chunk, which is of no use without the earlier ones, counts as older. */
export async function touch(folder: string, keys: readonly string[]): Promise<void> {
  const now = Date.now();
  for (const [index, key] of keys.entries()) {
    const time = new Date(now - index);
    await Deno.utime(chunkPath(folder, key), time, time).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}

/** Removes the least recently used chunks until `limitBytes` are left, and what crashed processes left. Returns the bytes removed. */
export async function evict(folder: string, limitBytes: number): Promise<number> {
  for (const { path, used } of await files(folder, TEMPORARY)) {
    if (Date.now() - used > STALE_MS) await removeIfThere(path);
  }
  const chunks = (await files(folder, EXTENSION)).sort((a, b) => a.used - b.used);
  const total = chunks.reduce((sum, { bytes }) => sum + bytes, 0);
  let left = total;
  for (const { path, bytes } of chunks) {
    if (left <= limitBytes) break;
    await removeIfThere(path);
    left -= bytes;
  }
  return total - left;
}

/** What the folder contains, the latest used first. */
export async function listPrompts(folder: string): Promise<SavedPrompt[]> {
  const prompts = new Map<string, SavedPrompt>();
  const start = new Uint8Array(FACTS_BYTES);
  for (const { path, bytes, used } of await files(folder, EXTENSION)) {
    const facts = factsOf(start.subarray(0, await readStart(path, start)));
    if (facts === undefined) continue;
    const known = prompts.get(facts.first) ??
      { model: facts.model, tokens: 0, chunks: 0, bytes: 0, lastUsed: new Date(0) };
    prompts.set(facts.first, {
      model: known.model,
      tokens: Math.max(known.tokens, facts.endTokens),
      chunks: known.chunks + 1,
      bytes: known.bytes + bytes,
      lastUsed: new Date(Math.max(known.lastUsed.getTime(), used)),
    });
  }
  return [...prompts.values()].sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
}

async function readStart(path: string, start: Uint8Array): Promise<number> {
  try {
    using file = await Deno.open(path);
    return await file.read(start) ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Removes all saved prompts and nothing else. Returns how many files and bytes. */
export async function clearPrompts(folder: string): Promise<{ files: number; bytes: number }> {
  const removed = { files: 0, bytes: 0 };
  for (const extension of [EXTENSION, TEMPORARY, ".model"]) {
    for (const { path, bytes } of await files(folder, extension)) {
      if (!await removeIfThere(path) || extension !== EXTENSION) continue;
      removed.files++;
      removed.bytes += bytes;
    }
  }
  return removed;
}
