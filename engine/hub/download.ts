import { dirname } from "@std/path";
import { PagesiftError } from "../errors.ts";
import type { CachedModel } from "./cache.ts";
import type { HubClient, HubFile } from "./client.ts";
import { statOrUndefined } from "../folder/json_file.ts";
import { PartialFile } from "./partial_file.ts";
import { StallGuard } from "./stall_guard.ts";

/** Progress of the download of one file. */
export interface DownloadProgress {
  /** Name of the file in the model's repository. */
  file: string;
  /** Bytes that have arrived, earlier downloads included. */
  doneBytes: number;
  /** Size of the file; undefined if the server does not report it. */
  totalBytes: number | undefined;
}

/** What the download of every file of a model shares. */
export interface Download {
  readonly client: HubClient;
  readonly model: CachedModel;
  readonly commit: string;
  readonly stallSeconds: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: DownloadProgress) => void) | undefined;
}

const LOCK_POLL_MS = 100;

/**
 * Downloads one file of a model to the cache. An interrupted download is resumed. A file only appears under its name after its size,
 * and its SHA-256 if the Hub provides it, have been checked. Throws "network" errors.
 */
export async function downloadFile(download: Download, name: string): Promise<void> {
  const { model, commit } = download;
  const expected = await describeFile(download, name);
  const blob = model.blobPath(expected.etag);
  await Deno.mkdir(dirname(blob), { recursive: true });
  using _lock = await lock(model.lockPath(expected.etag), download.signal);
  if (!await isWhole(blob, expected)) await fetchBlob(download, name, expected);
  await model.link(commit, name, expected.etag);
}

async function describeFile({ client, commit, stallSeconds, signal }: Download, name: string): Promise<HubFile> {
  using guard = new StallGuard(stallSeconds, signal);
  return await client.file(commit, name, guard);
}

async function isWhole(blob: string, { bytes }: HubFile): Promise<boolean> {
  const info = await statOrUndefined(blob);
  return info !== undefined && (bytes === undefined || info.size === bytes);
}

/** An advisory lock of the file, which other programs that share the cache also use; it ends with the process. */
async function lock(path: string, signal: AbortSignal | undefined): Promise<Deno.FsFile> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const file = await Deno.open(path, { write: true, create: true });
  try {
    while (!await file.tryLock(true)) {
      signal?.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

async function fetchBlob(download: Download, name: string, expected: HubFile): Promise<void> {
  const blob = download.model.blobPath(expected.etag);
  const path = `${blob}.incomplete`;
  {
    using partial = await PartialFile.open(path);
    // Without a size, a part looks like the whole file.
    if (expected.bytes === undefined || partial.bytes > expected.bytes) await partial.restart();
    if (partial.bytes !== expected.bytes) await transfer(download, name, expected, partial);
    await checkContent(name, expected, partial);
    await partial.flush();
  }
  await Deno.rename(path, blob);
}

async function transfer(
  { client, commit, stallSeconds, signal, onProgress }: Download,
  name: string,
  expected: HubFile,
  partial: PartialFile,
): Promise<void> {
  using guard = new StallGuard(stallSeconds, signal);
  const response = await client.open(commit, name, partial.bytes, guard);
  if (!continues(response, partial.bytes)) await partial.restart();
  try {
    for await (const chunk of response.body ?? []) {
      guard.touch();
      if (partial.bytes + chunk.length > (expected.bytes ?? Infinity)) throw sizeError(name, expected, "more");
      await partial.append(chunk);
      onProgress?.({ file: name, doneBytes: partial.bytes, totalBytes: expected.bytes });
    }
  } catch (error) {
    throw client.failure(error, guard, name);
  }
}

/** Whether a body starts where the file ends; a server without ranges sends everything again. */
function continues(response: Response, bytes: number): boolean {
  return response.status === 206 && (response.headers.get("content-range") ?? "").startsWith(`bytes ${bytes}-`);
}

async function checkContent(name: string, expected: HubFile, partial: PartialFile): Promise<void> {
  if (expected.bytes !== undefined && partial.bytes !== expected.bytes) {
    throw sizeError(name, expected, `only ${partial.bytes}`);
  }
  if (!/^[0-9a-f]{64}$/.test(expected.etag)) return;
  const found = partial.digest();
  if (found === expected.etag) return;
  await partial.restart(); // bytes that are wrong must not be built upon
  throw new PagesiftError(
    "network",
    `File "${name}" arrived damaged: expected SHA-256 ${expected.etag}, found ${found}; run the command again`,
  );
}

function sizeError(name: string, { bytes }: HubFile, found: string): PagesiftError {
  return new PagesiftError(
    "network",
    `File "${name}" has ${bytes} bytes, ${found} arrived; run the command again to go on`,
  );
}
