import { dirname, join } from "@std/path";
import { PagesiftError, reasonOf } from "../errors.ts";
import { statOrUndefined } from "../folder/json_file.ts";

/** Environment variables by name. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The Hugging Face cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `huggingface/hub` in the user's cache folder. */
export function cacheFolder(env: Environment): string {
  if (env["HF_HUB_CACHE"]) return expandHome(env["HF_HUB_CACHE"], env);
  if (env["HF_HOME"]) return join(expandHome(env["HF_HOME"], env), "hub");
  return join(expandHome(env["XDG_CACHE_HOME"] || "~/.cache", env), "huggingface", "hub");
}

function expandHome(path: string, env: Environment): string {
  if (path !== "~" && !path.startsWith("~/")) return path;
  if (env["HOME"]) return join(env["HOME"], path.slice(1));
  throw new PagesiftError("network", `No home folder for the model cache "${path}"; set HF_HUB_CACHE to a folder`);
}

/** One model in the cache: `blobs` by content, `snapshots` of links to them by commit, `refs` that name commits. */
export class CachedModel {
  readonly #root: string;
  readonly #locks: string;

  constructor(cache: string, id: string) {
    const name = `models--${id.replace("/", "--")}`;
    this.#root = join(cache, name);
    this.#locks = join(cache, ".locks", name);
  }

  blobPath(etag: string): string {
    return join(this.#root, "blobs", etag);
  }

  lockPath(etag: string): string {
    return join(this.#locks, `${etag}.lock`);
  }

  snapshotPath(commit: string): string {
    return join(this.#root, "snapshots", commit);
  }

  /** The snapshot folder of a branch, tag or commit, or undefined if it is not in the cache. */
  async findSnapshot(revision: string): Promise<string | undefined> {
    const commit = await readIfThere(this.#refPath(revision)) ?? revision;
    if (!isCommit(commit.trim())) return undefined;
    const folder = this.snapshotPath(commit.trim());
    return (await statOrUndefined(folder))?.isDirectory ? folder : undefined;
  }

  /** Makes `file` of a snapshot a link to a blob, atomically. */
  async link(commit: string, file: string, etag: string): Promise<void> {
    const path = join(this.snapshotPath(commit), file);
    const fresh = `${path}.${crypto.randomUUID().slice(0, 8)}`;
    await Deno.mkdir(dirname(path), { recursive: true });
    const up = file.split("/").map(() => "..");
    await Deno.symlink(join("..", ...up, "blobs", etag), fresh);
    await Deno.rename(fresh, path);
  }

  /** Stores the commit of a branch or tag. */
  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = this.#refPath(revision);
    const fresh = `${path}.${crypto.randomUUID().slice(0, 8)}`;
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeTextFile(fresh, commit);
    await Deno.rename(fresh, path);
  }

  #refPath(revision: string): string {
    return join(this.#root, "refs", revision);
  }
}

/** Whether text is a full commit hash, which also makes it safe as a folder name. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}([0-9a-f]{24})?$/.test(text);
}

/** Runs an operation on the cache; a file system failure becomes a "network" error that says what to do. */
export async function onCache<T>(cache: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    if (!isFileError(error)) throw error;
    const advice = "check its space and rights, or set HF_HUB_CACHE to another folder";
    throw new PagesiftError("network", `Cannot use the model cache "${cache}": ${reasonOf(error)}; ${advice}`, {
      cause: error,
    });
  }
}

/** Failures of the file system are of Deno's own classes, or plain errors with a system code such as a full disk's. */
function isFileError(error: unknown): boolean {
  if (error instanceof PagesiftError || !(error instanceof Error)) return false;
  const hasSystemCode = "code" in error && typeof error.code === "string";
  return hasSystemCode || Object.values(Deno.errors).some((type) => error instanceof type);
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    if (error instanceof Deno.errors.IsADirectory) return undefined;
    throw error;
  }
}
