import type { DecodeStep } from "./decode_batch.ts";
import type { Decoder } from "./decoder.ts";
import { PagesiftError } from "./errors.ts";
import { countSparseLayers, exceedsBudget, type PagePolicy } from "./pages/page_policy.ts";
import type { Request } from "./request.ts";
import type { RunStats } from "./run_stats.ts";
import { argmax, divergence, logSoftmax } from "./sample/log_probabilities.ts";
import type { StepResult } from "./step_runner.ts";
import type { RunVerification, Verification, VerifyOptions } from "./types.ts";

/** @throws {PagesiftError} of kind "usage" if the options are invalid, or no step under the policy selects pages */
export function checkVerify({ every = 1, limit }: VerifyOptions, policy: PagePolicy): void {
  if (!Number.isSafeInteger(every) || every < 1) {
    throw new PagesiftError("usage", `verify.every is ${every}, expected a whole number from 1`);
  }
  if (limit !== undefined && !(Number.isFinite(limit) && limit >= 0)) {
    throw new PagesiftError("usage", `verify.limit is ${limit}, expected a number from 0`);
  }
  if (countSparseLayers(policy) > 0) return;
  throw new PagesiftError("usage", "There is nothing to verify: no layer selects pages; use sparse mode on or auto");
}

/**
 * Computes every Nth decode step of a run both densely and with selected pages, over the same cache, and compares the logits. The step
 * in force is computed last, so that the cache contains its keys and values.
 *
 * With a limit, a request whose divergence exceeds it reads densely until a verified step is within the limit again, beginning with the
 * step that exceeded it. The other requests of the batch read densely meanwhile, so that each step is one pass over the weights.
 */
export class Verifier {
  readonly #tallies = new Map<Request, Tally>();
  readonly #total = new Tally();
  readonly #overLimit = new Set<Request>();
  readonly #every: number;
  readonly #limit: number;
  #numSteps = 0;
  #seconds = 0;
  #readDensely = false;

  constructor(readonly decoder: Decoder, readonly stats: RunStats, { every = 1, limit = Infinity }: VerifyOptions) {
    this.#every = every;
    this.#limit = limit;
  }

  /** Whether the latest step read densely because of the limit. */
  get readDensely(): boolean {
    return this.#readDensely;
  }

  /** Computes a step, one row per request. The next step overwrites the result. */
  compute(step: DecodeStep, requests: readonly Request[]): StepResult {
    const isDue = this.#numSteps++ % this.#every === 0;
    const isDense = requests.some((request) => this.#overLimit.has(request));
    const result = isDue && step.selecting ? this.#verify(step, requests, isDense) : this.#only(step, isDense);
    for (const request of requests) {
      const selects = this.#selects(step, request);
      if (isDue && !selects) this.#count(request, (tally) => tally.skipped++);
      if (this.#readDensely && selects) this.#count(request, (tally) => tally.denseSteps++);
    }
    return result;
  }

  /** What was found about a request, which has ended. */
  finish(request: Request): Verification {
    const tally = this.#tallies.get(request) ?? new Tally();
    this.#tallies.delete(request);
    this.#overLimit.delete(request);
    return tally.report();
  }

  /** What was found about all requests so far. */
  report(): RunVerification {
    const limit = Number.isFinite(this.#limit) ? { limit: this.#limit } : {};
    return { every: this.#every, ...limit, ...this.#total.report(), seconds: this.#seconds };
  }

  #only(step: DecodeStep, isDense: boolean): StepResult {
    this.#readDensely = isDense && step.selecting !== undefined;
    return this.#readDensely ? this.decoder.computeDense(step) : this.decoder.compute(step);
  }

  #verify(step: DecodeStep, requests: readonly Request[], isDense: boolean): StepResult {
    const started = performance.now();
    const before = this.#counters();
    const other = (isDense ? this.decoder.compute(step) : this.decoder.computeDense(step)).logits.readFloats();
    const between = this.#counters();
    const otherMs = performance.now() - started;
    const result = this.#only(step, isDense);
    const comparing = performance.now();
    const used = result.logits.readFloats();
    const [dense, sparse] = isDense ? [used, other] : [other, used];
    const vocabSize = used.length / requests.length;
    requests.forEach((request, row) => {
      if (!this.#selects(step, request)) return;
      const rowOf = (logits: Float32Array): Float32Array => logits.subarray(row * vocabSize, (row + 1) * vocabSize);
      this.#compare(request, rowOf(dense), rowOf(sparse));
    });
    // The step in force selected, and a request exceeded the limit at it: it is computed densely instead.
    const repeats = !isDense && requests.some((request) => this.#overLimit.has(request));
    this.stats.exclude(before, repeats ? this.#counters() : between);
    this.#seconds += (otherMs + performance.now() - comparing) / 1000;
    return repeats ? this.#only(step, true) : result;
  }

  #compare(request: Request, dense: Float32Array, sparse: Float32Array): void {
    const kl = divergence(logSoftmax(dense), logSoftmax(sparse));
    // Logits that are not finite have no divergence: they exceed every limit and are left out of the figures.
    const exceeds = this.#limit !== Infinity && !(kl <= this.#limit);
    if (exceeds) this.#overLimit.add(request);
    else this.#overLimit.delete(request);
    if (Number.isNaN(kl)) return;
    const step = request.sequence.length - request.promptIds.length;
    const agrees = argmax(dense) === argmax(sparse);
    this.#count(request, (tally) => tally.add(step, agrees, Math.max(0, kl), exceeds));
  }

  /** Whether a selection leaves pages of the request out. */
  #selects(step: DecodeStep, request: Request): boolean {
    return step.selecting !== undefined && exceedsBudget(this.decoder.policy, request.sequence.length);
  }

  #count(request: Request, change: (tally: Tally) => void): void {
    let tally = this.#tallies.get(request);
    if (!tally) this.#tallies.set(request, tally = new Tally());
    change(tally);
    change(this.#total);
  }

  #counters(): ReturnType<Decoder["pool"]["cache"]["counters"]> {
    return this.decoder.pool.cache.counters();
  }
}

/** Sums over verified steps. */
class Tally {
  skipped = 0;
  denseSteps = 0;
  #steps = 0;
  #agreed = 0;
  #sumKl = 0;
  #maxKl = 0;
  #overLimit = 0;
  #firstDifference: number | undefined;

  add(step: number, agrees: boolean, kl: number, exceeds: boolean): void {
    this.#steps++;
    if (agrees) this.#agreed++;
    else this.#firstDifference = Math.min(step, this.#firstDifference ?? Infinity);
    this.#sumKl += kl;
    this.#maxKl = Math.max(this.#maxKl, kl);
    if (exceeds) this.#overLimit++;
  }

  report(): Verification {
    const first = this.#firstDifference;
    return {
      steps: this.#steps,
      agreed: this.#agreed,
      ...this.#steps > 0 && { meanKl: this.#sumKl / this.#steps, maxKl: this.#maxKl },
      ...first !== undefined && { firstDifference: first },
      skipped: this.skipped,
      overLimit: this.#overLimit,
      denseSteps: this.denseSteps,
    };
  }
}
