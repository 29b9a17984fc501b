import type { Tensor } from "../ffi/tensor.ts";
import { DecodeBatch, type DecodeStep } from "./decode_batch.ts";
import { PagesiftError } from "./errors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { Model } from "./model.ts";
import { NativeSampler } from "./sample/native_sampler.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import { Aborted, breather, Prefill } from "./prefill.ts";
import { NO_TOKEN, type Request } from "./request.ts";
import type { RunStats } from "./run_stats.ts";
import type { StepObserver } from "./step_observer.ts";
import { StepRunner } from "./step_runner.ts";
import type { BatchPiece, PrefillProgress } from "./types.ts";

/** What a run needs beside its requests. */
export interface RunContext {
  model: Model;
  pool: KvPool;
  policy: PagePolicy;
  stats: RunStats;
  signal?: AbortSignal | undefined;
  onPrefill?: ((progress: PrefillProgress, index: number) => void) | undefined;
  /** Looks on at every decode step. */
  observer?: StepObserver | undefined;
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
  readonly #runner: StepRunner;
  readonly #sampler: NativeSampler;
  #active: Request[] = [];

  constructor(readonly context: RunContext, requests: readonly Request[]) {
    this.#waiting = [...requests];
    this.#breathe = breather(context.signal);
    this.#prefill = new Prefill(context.model, context.pool, context.policy);
    this.#batch = new DecodeBatch(context.model.device, context.pool, context.policy);
    this.#runner = new StepRunner(context.model, context.pool, context.policy, context.observer);
    this.#sampler = new NativeSampler(context.model.device, context.pool.shape.maxSequences);
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
        for (const piece of this.#endStarved()) yield piece;
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
    this.#runner.close();
    this.#batch.close();
    this.#sampler.close();
  }

  /** The first waiting request, taken off the queue, when the pool can hold it beside the active ones to their very ends. */
  #nextThatFits(): Request | undefined {
    const { pool } = this.context;
    const [next] = this.#waiting;
    const active = this.#active.filter((request) => !request.finished);
    if (!next || active.length >= pool.shape.maxSequences) return undefined;
    const pages = (request: Request): number => pool.pagesTaken(longestTokens(request));
    const reserved = active.reduce((sum, request) => sum + pages(request), 0);
    return reserved + pages(next) <= pool.shape.numPages ? this.#waiting.shift() : undefined;
  }

  /** Prefills a request and samples its first token. */
  async #start(request: Request): Promise<ReturnType<Request["accept"]>> {
    const { model, stats, onPrefill } = this.context;
    const started = performance.now();
    const totalTokens = request.promptIds.length;
    let id: number | undefined;
    await this.#prefill.run(request.sequence, request.promptIds, this.#breathe, (hidden, doneTokens) => {
      if (doneTokens === totalTokens) [id] = this.#sampleAfterPrompt(hidden, request) ?? [];
      onPrefill?.({ doneTokens, totalTokens, seconds: (performance.now() - started) / 1000 }, request.index);
    });
    await model.device.wait();
    if (id === undefined) throw numericError(await this.#badPlaceOfPrompt(request));
    stats.prefilled(totalTokens, (performance.now() - started) / 1000);
    return request.accept(id);
  }

  /**
   * Ends requests for which the pool has no page, one by one, since the pages of each serve the others. All that a request may need is set
   * aside before it begins, so this is for a pool that something else draws from as well.
   */
  #endStarved(): BatchPiece[] {
    const pieces: BatchPiece[] = [];
    for (let starved = this.#starved(); starved; starved = this.#starved()) {
      pieces.push(this.#finishOff(starved, starved.abort("kv_exhausted")));
      this.#active = this.#active.filter((request) => !request.finished);
    }
    return pieces;
  }

  /** The latest of the requests that need pages for their next token, where there are too few for all of them. */
  #starved(): Request | undefined {
    const { groupPages, numFree } = this.context.pool.allocator;
    const growing = this.#active.filter(({ sequence }) => sequence.needsPage);
    return growing.length * groupPages > numFree ? growing.at(-1) : undefined;
  }

  /** One step of all active requests. */
  #decode(): BatchPiece[] {
    if (this.#active.length === 0) return [];
    const { stats } = this.context;
    const started = performance.now();
    const requests = this.#active;
    const step = this.#batch.advance(
      requests.map((request) => request.sequence),
      requests.map((request) => request.lastId),
    );
    const { logits, best } = this.#runner.run(step);
    const ids = this.#sample(logits, best, requests);
    if (!ids) throw numericError(this.#badPlaceOfStep(step));
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

  /** The first token after the prompt, from the hidden states of its last chunk. */
  #sampleAfterPrompt(hidden: Tensor, request: Request): number[] | undefined {
    const { model } = this.context;
    const logits = model.logits(hidden.rows((hidden.shape[0] ?? 1) - 1, 1));
    return this.#sample(logits, model.best(logits), [request]);
  }

  /** One token for each row of logits, or undefined when a row has no finite best one. */
  #sample(logits: Tensor, best: Tensor, requests: readonly Request[]): number[] | undefined {
    const draws = requests.some(({ greedy, sampler }) => !greedy && sampler.deviceSettings);
    const ids = draws
      ? this.#sampler.sample(logits, requests.map(({ sampler }) => sampler))
      : Array.from(best.readInts());
    if (ids.includes(NO_TOKEN)) return undefined;
    if (requests.every(({ sampler }) => sampler.deviceSettings)) return ids;
    const numbers = logits.readFloats();
    const { vocabSize } = this.context.model.config;
    return requests.map(({ sampler, history }, row) =>
      sampler.deviceSettings
        ? ids[row] ?? NO_TOKEN
        : sampler.sample(numbers.subarray(row * vocabSize, (row + 1) * vocabSize), history)
    );
  }

  /** Takes the last chunk of a prompt in again and looks at the hidden states after every layer. */
  async #badPlaceOfPrompt({ promptIds, sequence }: Request): Promise<string> {
    const { model: { activations }, pool } = this.context;
    const start = Math.floor((promptIds.length - 1) / activations.maxTokens) * activations.maxTokens;
    const chunk = promptIds.slice(start);
    const finite: boolean[] = [];
    const look = (): Promise<void> => {
      finite.push(allFinite(activations.views(chunk.length).hidden));
      return Promise.resolve();
    };
    pool.truncate(sequence, start);
    await this.#prefill.run(sequence, chunk, look, () => {});
    return `in the prompt of ${promptIds.length} tokens, ${firstBadLayer(finite)}`;
  }

  /** Runs a step again, which changes nothing, and looks at the hidden states after every layer. */
  #badPlaceOfStep(step: DecodeStep): string {
    const { model, pool, policy, stats } = this.context;
    const finite: boolean[] = [];
    model.decode(pool, policy, step, { afterLayer: (_layer, hidden) => finite.push(allFinite(hidden)) });
    return `at decode step ${stats.snapshot().decodeSteps + 1}, ${firstBadLayer(finite)}`;
  }
}

function allFinite(hidden: Tensor): boolean {
  return hidden.readFloats().every(Number.isFinite);
}

/** `finite`: whether the hidden states were finite after each layer. */
function firstBadLayer(finite: readonly boolean[]): string {
  const layer = finite.indexOf(false);
  return `first in ${layer < 0 ? "the output projection" : `layer ${layer}`}`;
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
    `The model gave logits that are not finite ${where}; check the weights, or use a copy of the model in f32`,
  );
}
