import type { Tensor } from "../ffi/tensor.ts";
import { DecodeBatch, type DecodeStep } from "./decode_batch.ts";
import { PagesiftError } from "./errors.ts";
import type { KvPool } from "./kv_pool.ts";
import type { Model } from "./model.ts";
import type { PagePolicy } from "./page_policy.ts";
import { pagesFor } from "./page_table.ts";
import { Aborted, breather, Prefill } from "./prefill.ts";
import { NO_TOKEN, type Request } from "./request.ts";
import type { RunStats } from "./run_stats.ts";
import type { BatchPiece, PrefillProgress } from "./types.ts";

/** What a run needs beside its requests. */
export interface RunContext {
  model: Model;
  pool: KvPool;
  policy: PagePolicy;
  stats: RunStats;
  signal?: AbortSignal | undefined;
  onPrefill?: ((progress: PrefillProgress, index: number) => void) | undefined;
}

/**
 * Runs requests as one batch: a request is prefilled as soon as the pool has room for all that it may need, then decodes together
 * with the others, one token a step, and gives its pages back when it ends.
 */
export class Generation {
  readonly #waiting: Request[];
  readonly #breathe: () => Promise<void>;
  readonly #prefill: Prefill;
  readonly #batch: DecodeBatch;
  #active: Request[] = [];

  constructor(readonly context: RunContext, requests: readonly Request[]) {
    this.#waiting = [...requests];
    this.#breathe = breather(context.signal);
    this.#prefill = new Prefill(context.model, context.pool, context.policy);
    this.#batch = new DecodeBatch(context.model.device, context.pool, context.policy);
  }

  /** Pieces of all requests as they appear. An abort ends every request that had started with a closing piece. */
  async *run(): AsyncGenerator<BatchPiece> {
    try {
      while (this.#waiting.length > 0 || this.#active.length > 0) {
        for (let next = this.#nextThatFits(); next; next = this.#nextThatFits()) {
          this.#active.push(next);
          yield this.#finishOff(next, await this.#start(next));
        }
        this.#active = this.#active.filter((request) => !request.finished);
        if (this.#active.length === 0) continue;
        await this.#breathe();
        for (const piece of this.#decode()) yield piece;
      }
    } catch (error) {
      if (!(error instanceof Aborted)) throw error;
      for (const request of this.#active.filter((one) => !one.finished)) {
        yield this.#finishOff(request, request.abort());
      }
      this.context.stats.finished("aborted");
    } finally {
      this.#close();
    }
  }

  #close(): void {
    for (const request of this.#active) request.sequence.release();
    this.#prefill.close();
    this.#batch.close();
  }

  /** The first waiting request, taken off the queue, when the pool can hold it beside the active ones to their very ends. */
  #nextThatFits(): Request | undefined {
    const { pool } = this.context;
    const [next] = this.#waiting;
    const active = this.#active.filter((request) => !request.finished);
    if (!next || active.length >= pool.shape.maxSequences) return undefined;
    const pages = (request: Request): number => pagesFor(longestTokens(request), pool.shape.pageSize);
    const reserved = active.reduce((sum, request) => sum + pages(request), 0);
    return reserved + pages(next) <= pool.shape.numPages ? this.#waiting.shift() : undefined;
  }

  /** Prefills a request and samples its first token. */
  async #start(request: Request): Promise<ReturnType<Request["accept"]>> {
    const { model, stats, onPrefill } = this.context;
    const started = performance.now();
    const totalTokens = request.promptIds.length;
    let id = NO_TOKEN;
    await this.#prefill.run(request.sequence, request.promptIds, this.#breathe, (hidden, doneTokens) => {
      if (doneTokens === totalTokens) {
        id = this.#sample(hidden.rows((hidden.shape[0] ?? 1) - 1, 1), [request], () =>
          `in the prompt of ${totalTokens} tokens`)[0] ?? NO_TOKEN;
      }
      onPrefill?.({ doneTokens, totalTokens, seconds: (performance.now() - started) / 1000 }, request.index);
    });
    await model.device.wait();
    stats.prefilled(totalTokens, (performance.now() - started) / 1000);
    return request.accept(id);
  }

  /** One step of all active requests. */
  #decode(): BatchPiece[] {
    const { model, pool, policy, stats } = this.context;
    const started = performance.now();
    const requests = this.#active;
    const step = this.#batch.advance(
      requests.map((request) => request.sequence),
      requests.map((request) => request.lastId),
    );
    const hidden = model.decode(pool, policy, step);
    const ids = this.#sample(hidden, requests, () => this.#firstBadLayer(step));
    stats.decoded(requests.length, (performance.now() - started) / 1000);
    return requests.map((request, row) => {
      stats.contextReached(request.sequence.length);
      return this.#finishOff(request, request.accept(ids[row] ?? NO_TOKEN));
    });
  }

  #finishOff(request: Request, piece: ReturnType<Request["accept"]>): BatchPiece {
    if (piece.finish) {
      request.sequence.release();
      this.context.stats.finished(piece.finish);
    }
    return { ...piece, index: request.index };
  }

  /** One token for each row of hidden states. */
  #sample(hidden: Tensor, requests: readonly Request[], where: () => string): number[] {
    const { model } = this.context;
    const logits = model.logits(hidden);
    if (requests.every((request) => request.greedy)) {
      const ids = Array.from(model.best(logits));
      if (ids.includes(NO_TOKEN)) throw numericError(where());
      return ids;
    }
    const numbers = logits.readFloats();
    const { vocabSize } = model.config;
    return requests.map((request, row) => {
      const rowLogits = numbers.subarray(row * vocabSize, (row + 1) * vocabSize);
      if (rowLogits.some(Number.isNaN)) throw numericError(where());
      return request.sampler.sample(rowLogits, request.history);
    });
  }

  /** Runs the step again, which changes nothing, and looks at the hidden states after every layer. */
  #firstBadLayer(step: DecodeStep): string {
    const { model, pool, policy, stats } = this.context;
    let found: number | undefined;
    model.decode(pool, policy, step, (layer, hidden) => {
      if (found === undefined && !hidden.readFloats().every(Number.isFinite)) found = layer;
    });
    const origin = found === undefined ? "the output projection" : `layer ${found}`;
    return `at decode step ${stats.snapshot().decodeSteps + 1}, first in ${origin}`;
  }
}

/** Tokens that a request holds in the cache at most; the last generated one never goes in. */
export function longestTokens(
  request: { promptIds: readonly number[]; maxTokens: number; limits: { maxContext: number } },
): number {
  return Math.min(request.promptIds.length + Math.max(0, request.maxTokens - 1), request.limits.maxContext);
}

function numericError(where: string): PagesiftError {
  return new PagesiftError(
    "numeric",
    `The model gave logits that are not finite ${where}; check the weights, or load the model as f32`,
  );
}
