/** One sequence of a loaded model that scripts prefill once and decode many times, under different page policies. */
import { DecodeBatch } from "../../engine/decode_batch.ts";
import type { Engine } from "../../engine/engine.ts";
import { cacheShape, KvPool } from "../../engine/kv_pool.ts";
import { type PagePolicy, resolvePolicy } from "../../engine/page_policy.ts";
import { breather, Prefill } from "../../engine/prefill.ts";
import type { Sequence } from "../../engine/sequence.ts";
import type { SparseOptions } from "../../engine/types.ts";
import type { Counters } from "../../ffi/structs.ts";

export class DecodeSession implements Disposable {
  readonly pool: KvPool;
  readonly sequence: Sequence;
  readonly #batches = new Map<PagePolicy, DecodeBatch>();

  /** @param maxTokens prompt and everything decoded after it */
  constructor(readonly engine: Engine, maxTokens: number, pageSize = 8) {
    const policy = resolvePolicy({ pageSize }, engine.config.slidingWindows);
    const need = { totalTokens: maxTokens, longestTokens: maxTokens, maxSequences: 1 };
    this.pool = new KvPool(engine.device, cacheShape(engine.config, engine.dtype, policy, need));
    this.sequence = this.pool.openSequence();
  }

  policy(sparse: SparseOptions): PagePolicy {
    return resolvePolicy({ pageSize: this.pool.shape.pageSize, ...sparse }, this.engine.config.slidingWindows);
  }

  /** Takes the ids in densely, in chunks. Returns seconds. */
  async prefill(ids: readonly number[], policy: PagePolicy): Promise<number> {
    const started = performance.now();
    const prefill = new Prefill(this.engine.model, this.pool, policy);
    await prefill.run(this.sequence, ids, breather(undefined), () => {});
    await this.engine.device.wait();
    prefill.close();
    return (performance.now() - started) / 1000;
  }

  /** Feeds one token through a decode step and returns the most likely next one. */
  step(id: number, policy: PagePolicy): number {
    const { model } = this.engine;
    const step = this.#batch(policy).advance([this.sequence], [id]);
    return model.best(model.logits(model.decode(this.pool, policy, step)))[0] ?? -1;
  }

  /** Back to the first `length` tokens. */
  rewind(length: number): void {
    this.pool.truncate(this.sequence, length);
    // A batch remembers which pages it has written; after a truncation they may be others.
    for (const batch of this.#batches.values()) batch.close();
    this.#batches.clear();
  }

  counters(): Counters {
    return this.pool.cache.counters();
  }

  #batch(policy: PagePolicy): DecodeBatch {
    let batch = this.#batches.get(policy);
    if (!batch) this.#batches.set(policy, batch = new DecodeBatch(this.engine.device, this.pool, policy));
    return batch;
  }

  [Symbol.dispose](): void {
    this.rewind(0);
    this.pool.close();
  }
}

/** One line to stdout. */
export function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

/** The commit that is measured, with a mark when files differ from it. */
export async function commit(): Promise<string> {
  const git = async (...args: string[]): Promise<string> =>
    new TextDecoder().decode((await new Deno.Command("git", { args, stdout: "piped", stderr: "null" }).output()).stdout)
      .trim();
  const changed = await git("status", "--porcelain", "--", "csrc", "engine", "ffi");
  return `${await git("rev-parse", "--short", "HEAD")}${changed ? "+changes" : ""}`;
}

/** Prose of about `tokens` tokens, from a text file. @throws {Error} when the file is too short */
export function proseIds(engine: Engine, file: string, tokens: number, firstCharacter = 0): number[] {
  const text = Deno.readTextFileSync(file).replaceAll(/(?<!\n)\r?\n(?!\r?\n)/g, " ");
  const ids = engine.tokenizer.encode(text.slice(firstCharacter, firstCharacter + tokens * 6));
  if (ids.length < tokens) {
    throw new Error(`"${file}" gives ${ids.length} tokens, wanted ${tokens}; name a longer text`);
  }
  return ids.slice(0, tokens);
}
