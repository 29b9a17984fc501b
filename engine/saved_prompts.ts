import { createHash } from "node:crypto";
import { basename } from "@std/path";
import { reasonOf } from "./errors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { MIN_CHUNK_TOKENS } from "./pages/prefix_tree.ts";
import type { Sequence } from "./pages/sequence.ts";
import { chunkBuffer, FACTS_BYTES, pagesOf } from "./prompts/chunk_file.ts";
import { replaceFile } from "./prompts/files.ts";
import { modelFingerprint } from "./prompts/model_fingerprint.ts";
import { chunkPath, evict, openPromptFolder, touch } from "./prompts/prompt_folder.ts";
import { readAhead } from "./prompts/read_ahead.ts";
import type { SavedPromptStats } from "./types.ts";

/** Tokens of a chunk, unless a group of pages has more. Two prompts share whole chunks. */
const CHUNK_TOKENS = 64;
/** Chunks that are written at the same time. */
const CHUNKS_AT_ONCE = 4;
/** Chunks that are read at the same time, if they are no larger together. Disks are faster with many requests. */
const READS_AT_ONCE = 16;
const READ_BYTES = 128 << 20;

export const DEFAULT_LIMIT_BYTES = 20e9;

/** Where prompts are saved. */
export interface PromptCacheOptions {
  /** Created if it is missing. */
  folder: string;
  /** The least recently used chunks are removed beyond this size. Default 20e9. */
  limitBytes?: number;
  /** What `pagesift cache list` shows as the model. Default: the last part of its path. */
  modelName?: string;
  /** Called when the cache cannot be read or written; the prompt is then computed. At most once per generation. */
  onWarning?: (text: string) => void;
}

/** A chunk of a prompt. */
interface Chunk {
  key: string;
  ids: readonly number[];
  endTokens: number;
}

function noStats(): SavedPromptStats {
  return { loadedTokens: 0, loadedBytes: 0, loadSeconds: 0, savedTokens: 0, savedBytes: 0, saveSeconds: 0 };
}

/** Prompts of one model on disk: keys, values and page statistics in chunks, each named by everything that its numbers depend on. */
export class SavedPrompts {
  #stats = noStats();
  #warned = false;
  /** Saves under way. */
  #saves: Promise<void>[] = [];
  /** Keys of chunks whose files cannot be used, and are to be replaced. */
  readonly #damaged = new Set<string>();
  /** Keys of the chunks of this run's prompts, each prompt in its order. */
  #used: string[][] = [];

  private constructor(
    readonly options: PromptCacheOptions,
    /** Fingerprint of the weights, and what else of the engine the numbers depend on. */
    readonly context: string,
    readonly modelName: string,
  ) {}

  /** @throws {PagesiftError} of kind "usage" if the folder cannot be created */
  static async open(
    options: PromptCacheOptions,
    model: string,
    context: Readonly<Record<string, unknown>>,
  ): Promise<SavedPrompts> {
    await openPromptFolder(options.folder);
    const fingerprint = await modelFingerprint(model, options.folder);
    return new SavedPrompts(options, JSON.stringify({ fingerprint, ...context }), options.modelName ?? basename(model));
  }

  /** What was loaded and saved since {@link begin}. */
  get stats(): SavedPromptStats {
    return { ...this.#stats };
  }

  /** Starts the stats of a run. */
  begin(): void {
    this.#stats = noStats();
    this.#warned = false;
    this.#used = [];
  }

  /**
   * Continues a sequence that contains the beginning of a prompt, maybe nothing, with what was saved of the rest. At least the prompt's last
   * tokens are left to compute.
   */
  async load(
    pool: KvPool,
    sequence: Sequence,
    promptIds: readonly number[],
    yieldToEventLoop: () => Promise<void>,
  ): Promise<void> {
    const started = performance.now();
    const chunkTokens = chunkTokensOf(pool);
    const present = Math.floor(sequence.length / chunkTokens);
    const chunks = this.#chunks(pool, promptIds).filter(({ endTokens }) =>
      endTokens <= promptIds.length - MIN_CHUNK_TOKENS
    );
    const missing = chunks.slice(present);
    // A buffer of their own for each of some hundred files would take three times as long.
    const fileBytes = FACTS_BYTES + 4 * chunkTokens + chunkTokens / pool.prefixes.blockTokens * pool.unitBytes;
    const reads = Math.min(missing.length, READS_AT_ONCE, Math.max(2, Math.floor(READ_BYTES / fileBytes)));
    const buffers = Array.from({ length: reads }, () => new Uint8Array(fileBytes));
    const files = readAhead(missing, buffers, (chunk, buffer) => this.#read(chunk, buffer));
    for await (const [chunk, file] of files) {
      const pages = file && this.#check(chunk, file, pool);
      if (!pages) break;
      pool.importTokens(sequence, chunk.endTokens, pages);
      this.#stats.loadedTokens += chunkTokens;
      this.#stats.loadedBytes += file.length;
      await yieldToEventLoop();
    }
    const rest = sequence.length % pool.prefixes.reading.multiple;
    if (rest > 0) pool.truncate(sequence, sequence.length - rest);
    this.#stats.loadSeconds += (performance.now() - started) / 1000;
  }

  /** Starts to save the chunks of a prompt that are not on disk yet. The sequence contains its tokens; {@link finish} waits for the end. */
  save(pool: KvPool, sequence: Sequence, promptIds: readonly number[]): void {
    const chunks = this.#chunks(pool, promptIds);
    this.#used.push(chunks.map(({ key }) => key));
    const tokens = chunks.at(-1)?.endTokens ?? 0;
    const holder = pool.openSequence();
    holder.adopt(sequence.pages.slice(0, tokens / pool.shape.pageSize), tokens);
    this.#saves.push(this.#saveAll(pool, holder, chunks).finally(() => holder.release()));
  }

  /** Whether saves still hold pages. */
  get isSaving(): boolean {
    return this.#saves.length > 0;
  }

  /** Waits until everything is saved. */
  async settle(): Promise<void> {
    const saves = this.#saves;
    this.#saves = [];
    await Promise.all(saves);
  }

  /** Waits until everything is saved, then keeps the folder within its limit. */
  async finish(): Promise<void> {
    const started = performance.now();
    await this.settle();
    const { folder, limitBytes = DEFAULT_LIMIT_BYTES } = this.options;
    try {
      for (const keys of this.#used) await touch(folder, keys);
      if (this.#stats.savedBytes > 0) await evict(folder, limitBytes);
    } catch (error) {
      this.#warn(`Cannot keep saved prompts in "${folder}" within their limit: ${reasonOf(error)}`);
    }
    this.#used = [];
    if (this.#stats.savedBytes > 0) this.#stats.saveSeconds += (performance.now() - started) / 1000;
  }

  async #saveAll(pool: KvPool, holder: Sequence, chunks: readonly Chunk[]): Promise<void> {
    const waiting = [...chunks];
    const work = async (): Promise<void> => {
      try {
        for (let chunk = waiting.shift(); chunk; chunk = waiting.shift()) {
          await this.#saveOne(pool, holder, chunk, chunks[0]?.key ?? "");
        }
      } finally {
        waiting.length = 0;
      }
    };
    // All of them end before the pages are released, also when one fails.
    const ends = await Promise.allSettled(Array.from({ length: CHUNKS_AT_ONCE }, work));
    const failed = ends.find((end) => end.status === "rejected");
    if (failed) {
      this.#warn(
        `Cannot save the prompt in "${this.options.folder}": ${
          reasonOf(failed.reason)
        }; free space, or choose another folder`,
      );
    }
  }

  async #saveOne(pool: KvPool, holder: Sequence, chunk: Chunk, first: string): Promise<void> {
    const { key, ids, endTokens } = chunk;
    const path = chunkPath(this.options.folder, key);
    if (!this.#damaged.has(key) && await exists(path)) return;
    const units = pool.unitsOf(holder, endTokens - ids.length, endTokens);
    const buffer = chunkBuffer({ key, first, model: this.modelName, endTokens }, ids, units.length, pool.unitBytes);
    pool.cache.exportPages(units, buffer.pages);
    buffer.seal();
    await replaceFile(path, buffer.bytes);
    this.#damaged.delete(key);
    this.#stats.savedTokens += ids.length;
    this.#stats.savedBytes += buffer.bytes.length;
  }

  /** Reads a chunk's file into `buffer`, which has room for all of it and more; undefined without a file. */
  async #read({ key }: Chunk, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const path = chunkPath(this.options.folder, key);
    try {
      using file = await Deno.open(path);
      let done = 0;
      for (let count = await file.read(buffer); count; count = await file.read(buffer.subarray(done))) done += count;
      return buffer.subarray(0, done);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      this.#warn(`Cannot read the saved prompt "${path}": ${reasonOf(error)}; computing it`);
      return undefined;
    }
  }

  /** The pages in a chunk's file, or undefined, with a warning, if it is not what its name promises. */
  #check({ key, ids }: Chunk, file: Uint8Array<ArrayBuffer>, pool: KvPool): Uint8Array<ArrayBuffer> | undefined {
    try {
      return pagesOf(file, key, ids, ids.length / pool.prefixes.blockTokens * pool.unitBytes);
    } catch (error) {
      this.#damaged.add(key);
      this.#warn(
        `Skipped the saved prompt "${chunkPath(this.options.folder, key)}": ${reasonOf(error)}; computing it again`,
      );
      return undefined;
    }
  }

  /** The whole chunks of a prompt. */
  #chunks(pool: KvPool, promptIds: readonly number[]): Chunk[] {
    const chunkTokens = chunkTokensOf(pool);
    const { numPages: _, maxPagesPerSequence: __, maxSequences: ___, ...shape } = pool.shape;
    const { name: reading } = pool.prefixes.reading;
    let key = this.context +
      JSON.stringify({ shape, chunkTokens, unitBytes: pool.unitBytes, ...reading && { reading } });
    return Array.from({ length: Math.floor(promptIds.length / chunkTokens) }, (_, index) => {
      const ids = promptIds.slice(index * chunkTokens, (index + 1) * chunkTokens);
      key = createHash("sha256").update(key).update(Int32Array.from(ids)).digest("hex");
      return { key, ids, endTokens: (index + 1) * chunkTokens };
    });
  }

  #warn(text: string): void {
    if (!this.#warned) this.options.onWarning?.(text);
    this.#warned = true;
  }
}

function chunkTokensOf(pool: KvPool): number {
  return Math.max(CHUNK_TOKENS, pool.prefixes.blockTokens);
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
