/** One sequence of a loaded model that scripts prefill once and decode many times, under different page policies. */
import { DecodeBatch } from "../../engine/decode_batch.ts";
import type { Engine } from "../../engine/engine.ts";
import { cacheShape, KvPool } from "../../engine/pages/kv_pool.ts";
import type { PagePolicy } from "../../engine/pages/page_policy.ts";
import { breather, Prefill } from "../../engine/prefill.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import { StepRunner } from "../../engine/step_runner.ts";
import type { SparseOptions } from "../../engine/types.ts";
import type { Counters } from "../../ffi/structs.ts";

export class DecodeSession implements Disposable {
  readonly pool: KvPool;
  readonly sequence: Sequence;
  readonly #arms = new Map<PagePolicy, { batch: DecodeBatch; runner: StepRunner }>();

  /** @param maxTokens prompt and everything decoded after it */
  constructor(readonly engine: Engine, maxTokens: number, pageSize = 8) {
    const policy = engine.policy({ pageSize });
    const need = { totalTokens: maxTokens, longestTokens: maxTokens, maxSequences: 1 };
    this.pool = new KvPool(engine.device, cacheShape(engine.config, engine.dtype, policy, need));
    this.sequence = this.pool.openSequence();
  }

  policy(sparse: SparseOptions): PagePolicy {
    return this.engine.policy({ pageSize: this.pool.shape.pageSize, ...sparse });
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
    const { batch, runner } = this.#arm(policy);
    return runner.run(batch.advance([this.sequence], [id])).best.readInts()[0] ?? -1;
  }

  /** Back to the first `length` tokens. */
  rewind(length: number): void {
    this.pool.truncate(this.sequence, length);
    // A batch remembers which pages it has written; after a truncation they may be others.
    for (const { batch, runner } of this.#arms.values()) {
      runner.close();
      batch.close();
    }
    this.#arms.clear();
  }

  counters(): Counters {
    return this.pool.cache.counters();
  }

  #arm(policy: PagePolicy): { batch: DecodeBatch; runner: StepRunner } {
    let arm = this.#arms.get(policy);
    if (!arm) {
      const { model, device } = this.engine;
      arm = { batch: new DecodeBatch(device, this.pool, policy), runner: new StepRunner(model, this.pool, policy) };
      this.#arms.set(policy, arm);
    }
    return arm;
  }

  [Symbol.dispose](): void {
    this.rewind(0);
    this.pool.close();
  }
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
