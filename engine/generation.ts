import type { Tensor } from "../ffi/tensor.ts";
import { AheadSteps, type StepSampling } from "./ahead_steps.ts";
import type { DecodeStep, StepObserver } from "./decode_batch.ts";
import type { Decoder } from "./decoder.ts";
import { Aborted, type EventLoopYield, eventLoopYield } from "./event_loop.ts";
import type { Model, PrefillHooks } from "./model.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { densePolicy, type PagePolicy } from "./pages/page_policy.ts";
import { byPrefix } from "./pages/prompt_order.ts";
import type { Sequence } from "./pages/sequence.ts";
import { jointGroups, type Prefill } from "./prefill.ts";
import { MAX_BATCH, NO_TOKEN, type Request } from "./request.ts";
import { RequestQueue } from "./request_queue.ts";
import type { RunStats } from "./run_stats.ts";
import type { SavedPrompts } from "./saved_prompts.ts";
import type { NativeSampler } from "./sample/native_sampler.ts";
import type { BatchPiece, Piece, PrefillProgress } from "./types.ts";
import type { Verifier } from "./verifier.ts";

/** What a run uses in addition to its requests. The caller opens and closes these. */
export interface RunContext {
  model: Model;
  pool: KvPool;
  policy: PagePolicy;
  prefill: Prefill;
  decoder: Decoder;
  sampler: NativeSampler;
  stats: RunStats;
  savedPrompts?: SavedPrompts | undefined;
  /** Compares decode steps with dense ones. A run with an observer has none. */
  verifier?: Verifier | undefined;
  signal?: AbortSignal | undefined;
  onPrefill?: ((progress: PrefillProgress, index: number) => void) | undefined;
  /** Sees every decode step. */
  observer?: StepObserver | undefined;
  /** Requests that run at the same time at most, if fewer than the pool has sequences. */
  parallel?: number | undefined;
  /** Sees what tiles of prompts select. */
  afterSelection?: PrefillHooks["afterSelection"];
}

/** A prompt that is being read. */
interface OpenPrompt {
  request: Request;
  sequence: Sequence;
  /** What is to be computed of it. */
  ids: readonly number[];
  /** Whether it is saved at the end. */
  isSaved: boolean;
  /** The first token after it, once it is sampled. */
  firstId: number;
}

/** A chunk is read in this many parts while answers wait for it, so that they pause for less time. */
const SHARED_CHUNK_PARTS = 4;

/**
 * Runs requests as one batch: a request is prefilled as soon as the pool has room for all that it may need, then decodes together
 * with the others, one token per step, and frees its pages when it ends. If requests arrive during the run, the others decode between
 * the chunks of a prompt.
 */
export class Generation {
  readonly #requests: RequestQueue;
  readonly #yieldToEventLoop: EventLoopYield;
  #active: Request[] = [];
  /** The requests whose prompts are being read. */
  #starting: Request[] = [];
  /** Steps that start before the host has read the tokens before. */
  readonly #ahead: AheadSteps;
  /** The requests of the step that is under way, by row; none if none is. */
  #aheadRows: readonly Request[] = [];
  /** When the latest of them gave its token, or the reading of a prompt paused them last, in ms. */
  #aheadEndMs = 0;

  constructor(readonly context: RunContext, requests: readonly Request[] | AsyncIterable<Request>) {
    this.#ahead = new AheadSteps(context.decoder);
    this.#requests = new RequestQueue(Symbol.asyncIterator in requests ? requests : byPrefix(requests));
    this.#yieldToEventLoop = eventLoopYield(context.signal);
  }

  /** Pieces of all requests as they appear. An abort ends every request that had started with a closing piece. */
  async *run(): AsyncGenerator<BatchPiece> {
    using requests = this.#requests;
    try {
      while (this.#active.length > 0 || await requests.wait(this.context.signal)) {
        for (let group = this.#nextGroup(); group.length > 0; group = this.#nextGroup()) yield* this.#start(group);
        this.#active = this.#active.filter((request) => !request.finished);
        if (this.#active.length > 0) {
          await this.#yieldToEventLoop();
          for (const piece of this.#step()) yield piece;
        } else if (this.context.savedPrompts?.isSaving) {
          await this.context.savedPrompts.settle(); // it holds pages
        } else {
          // Without an active request, one that does not fit now never will.
          const tooLarge = requests.shift();
          if (tooLarge) yield this.#deliver(tooLarge, tooLarge.abort("kv_exhausted"));
          else await this.#yieldToEventLoop();
        }
      }
    } catch (error) {
      if (!(error instanceof Aborted)) throw error;
      for (const request of this.#started.filter((one) => !one.finished)) {
        yield this.#deliver(request, request.abort());
      }
      this.context.stats.finished("aborted");
    } finally {
      this.#dropAhead();
      for (const request of this.#started) request.release();
      await this.context.savedPrompts?.finish();
    }
  }

  get #started(): Request[] {
    return [...this.#active, ...this.#starting];
  }

  /**
   * Takes the next requests off the queue that fit, and opens their sequences: one, or several with short prompts that are read together.
   * A request that begins like another one of them waits, so that it finds the common pages.
   */
  #nextGroup(): Request[] {
    const { pool, policy, prefill } = this.context;
    const group: Request[] = this.#starting = [];
    let room = prefill.jointTokens(this.#chunkParts);
    for (const request of this.#requests.ahead(MAX_BATCH)) {
      if (!this.#fits(request)) break;
      const { promptIds, given, givenTokens } = request;
      const known = given ? 0 : pool.prefixes.countKnown(promptIds);
      const tokens = promptIds.length - known;
      const isShort = tokens <= room && prefill.isShort(policy, givenTokens + known, tokens);
      if (group.length > 0 && !isShort) break;
      if (!given && group.some((one) => !one.given && pool.prefixes.countCommon(promptIds, one.promptIds) > known)) {
        continue;
      }
      this.#requests.take(request);
      request.start(pool);
      group.push(request);
      if (!isShort) break;
      room -= tokens;
    }
    return group;
  }

  /** Whether the pool has room for a request and for those that have started until all of them end. */
  #fits(next: Request): boolean {
    const { pool, parallel = Infinity } = this.context;
    const started = this.#started.filter((request) => !request.finished);
    if (started.length >= Math.min(parallel, pool.shape.maxSequences)) return false;
    const pages = (request: Request): number => pool.pagesTaken(longestTokens(request));
    const held = ({ sequence }: Request): number => pool.pagesTaken(sequence.length);
    const reserved = started.reduce((sum, request) => sum + Math.max(0, pages(request) - held(request)), 0);
    const needed = pages(next) - (next.given ? held(next) : pool.prefixes.countUsed(next.promptIds));
    return reserved + needed <= pool.allocator.numFree;
  }

  /** Whether answers wait for the prompts that are read. */
  get #delaysAnswers(): boolean {
    return this.#requests.arrives && this.#active.length > 0;
  }

  get #chunkParts(): number {
    return this.#delaysAnswers ? SHARED_CHUNK_PARTS : 1;
  }

  /** Prefills a group and samples the first token of each request. */
  async *#start(group: readonly Request[]): AsyncGenerator<BatchPiece> {
    const { model, pool, stats, savedPrompts } = this.context;
    const clock = new Stopwatch();
    const prompts: OpenPrompt[] = [];
    for (const request of group) prompts.push(await this.#open(request));
    const [only] = prompts;
    if (only && prompts.length === 1) yield* this.#readAlone(only, clock);
    else await this.#readTogether(prompts, clock);
    await model.device.wait();
    this.#aheadEndMs = performance.now();
    const secondsPerToken = clock.seconds / prompts.reduce((sum, { ids }) => sum + ids.length, 0);
    for (const { request, sequence, ids, firstId, isSaved } of prompts) {
      const { promptIds } = request;
      const failure = firstId === NO_TOKEN ? numericError(await this.#badPlaceOfPrompt(request)) : undefined;
      if (failure === undefined) {
        if (!request.given) pool.prefixes.add(promptIds, sequence.pages, promptIds.length);
        if (isSaved) savedPrompts?.save(pool, sequence, promptIds);
        stats.prefilled(promptIds.length, promptIds.length - ids.length, ids.length * secondsPerToken);
      }
      const piece = failure === undefined ? request.accept(firstId) : request.fail(failure);
      // The next request may step the active ones before it has started.
      if (!request.finished) this.#active.push(request);
      this.#starting = this.#starting.filter((one) => one !== request);
      yield this.#deliver(request, piece);
    }
  }

  /** Loads what is saved of a prompt. */
  async #open(request: Request): Promise<OpenPrompt> {
    const { pool, savedPrompts } = this.context;
    const { sequence, promptIds, given } = request;
    const isSaved = savedPrompts !== undefined && (!given || sequence.length === 0);
    if (isSaved) await savedPrompts.load(pool, sequence, promptIds, this.#yieldToEventLoop);
    const reusedTokens = given && !isSaved ? 0 : sequence.length;
    return { request, sequence, ids: promptIds.slice(reusedTokens), isSaved, firstId: NO_TOKEN };
  }

  /** Reads a prompt chunk by chunk; the active requests continue between the chunks if they would wait for long. */
  async *#readAlone(prompt: OpenPrompt, clock: Stopwatch): AsyncGenerator<BatchPiece> {
    const { model, policy, prefill } = this.context;
    const { request, sequence, ids } = prompt;
    let chunkSeconds = 0;
    for await (
      const { hidden, doneTokens } of prefill.chunks(sequence, ids, policy, this.#hooks, () => this.#chunkParts)
    ) {
      const isLast = doneTokens === ids.length;
      if (isLast) {
        [prompt.firstId = NO_TOKEN] = this.#sampleAfterPrompts(hidden.rows((hidden.shape[0] ?? 1) - 1, 1), [request]);
      }
      this.#report(prompt, doneTokens, clock);
      if (!this.#delaysAnswers || isLast) continue;
      await model.device.wait();
      clock.stop();
      yield* this.#stepFor(1000 * (clock.seconds - chunkSeconds));
      chunkSeconds = clock.seconds;
      clock.go();
    }
  }

  /** Reads short prompts in one chunk, or in a few. */
  async #readTogether(prompts: OpenPrompt[], clock: Stopwatch): Promise<void> {
    const { model, policy, prefill } = this.context;
    for (const indices of jointGroups(model.device.backend, prompts.map(({ ids }) => ids.length))) {
      const group = indices.flatMap((index) => prompts[index] ?? []);
      const hidden = await prefill.together(group, policy, this.#hooks);
      const ids = this.#sampleAfterPrompts(hidden, group.map(({ request }) => request));
      group.forEach((prompt, index) => {
        prompt.firstId = ids[index] ?? NO_TOKEN;
        this.#report(prompt, prompt.ids.length, clock);
      });
    }
  }

  get #hooks(): PrefillHooks {
    return { yieldToEventLoop: this.#yieldToEventLoop, afterSelection: this.context.afterSelection };
  }

  #report({ request, ids }: OpenPrompt, doneIds: number, { seconds }: Stopwatch): void {
    const totalTokens = request.promptIds.length;
    const reusedTokens = totalTokens - ids.length;
    this.context.onPrefill?.({ doneTokens: reusedTokens + doneIds, reusedTokens, totalTokens, seconds }, request.index);
  }

  /** Steps of the active requests for about as long as a chunk of another prompt took, so that both get half of the device. */
  async *#stepFor(milliseconds: number): AsyncGenerator<BatchPiece> {
    const end = performance.now() + milliseconds;
    this.#aheadEndMs = performance.now();
    do {
      await this.#yieldToEventLoop();
      for (const piece of this.#step()) yield piece;
    } while (this.#active.length > 0 && performance.now() < end);
  }

  /** One token for each active request. */
  #step(): BatchPiece[] {
    // A step that runs ahead has its pages.
    const pieces = [...(this.#aheadRows.length > 0 ? [] : this.#endStarved()), ...this.#decode()];
    this.#active = this.#active.filter((request) => !request.finished);
    return pieces;
  }

  /**
   * Ends requests for which the pool has no page, one by one, since the pages of each serve the others. The pages of a request are reserved
   * before it starts, so this is for a pool that other code also allocates from.
   */
  #endStarved(): BatchPiece[] {
    const pieces: BatchPiece[] = [];
    for (let starved = this.#starved(); starved; starved = this.#starved()) {
      pieces.push(this.#deliver(starved, starved.abort("kv_exhausted")));
      this.#active = this.#active.filter((request) => !request.finished);
    }
    return pieces;
  }

  /** The latest of the requests that require pages for their next token, if there are too few for all of them. */
  #starved(): Request | undefined {
    const { groupPages, numFree } = this.context.pool.allocator;
    const growing = this.#active.filter(({ sequence }) => sequence.needsPage);
    return growing.length * groupPages > numFree ? growing.at(-1) : undefined;
  }

  /** One step of all active requests. */
  #decode(): BatchPiece[] {
    if (this.#active.length === 0) return [];
    if (this.#aheadRows.length > 0 || this.#canRunAhead) return this.#decodeAhead();
    const { decoder, policy, stats, observer, verifier } = this.context;
    const started = performance.now();
    const requests = this.#active;
    const step = decoder.batch.advance(
      requests.map((request) => request.sequence),
      requests.map((request) => request.lastId),
    );
    const { logits, best } = verifier?.compute(step, requests) ?? decoder.compute(step, observer && { observer });
    const ids = this.#sample(logits, best, requests);
    const usedPolicy = verifier?.readDensely ? densePolicy(policy) : policy;
    const places = ids.includes(NO_TOKEN) ? this.#badPlacesOfStep(step, usedPolicy) : [];
    for (const { sequence } of requests) stats.contextReached(sequence.length);
    return this.#deliverStep(requests, ids, places, (performance.now() - started) / 1000);
  }

  /** Whether steps may start ahead: on a device that works on while the host reads, if all that follows from logits is decided there. */
  get #canRunAhead(): boolean {
    const { model, observer, verifier } = this.context;
    const isDecidedThere = this.#active.every(({ sampler }) => sampler.deviceSettings !== undefined);
    return isDecidedThere && model.canRunAhead && !observer && !verifier;
  }

  /** Whether the step behind the one of these rows has the same rows, as far as can be known before their tokens are. */
  #goesOn(rows: readonly Request[]): boolean {
    const areActive = rows.length === this.#active.length &&
      rows.every((request, row) => request === this.#active[row]);
    return areActive && this.#canRunAhead && rows.every(({ goesOn }) => goesOn) && this.#starved() === undefined;
  }

  /** The next tokens of the active requests, or of those in the step under way. Starts the step behind it first, where its rows are certain. */
  #decodeAhead(): BatchPiece[] {
    const { stats } = this.context;
    const isUnderWay = this.#aheadRows.length > 0;
    const rows = isUnderWay ? this.#aheadRows : this.#active;
    const startedMs = isUnderWay ? this.#aheadEndMs : performance.now();
    if (!isUnderWay) this.#startAhead(rows, rows.map(({ lastId }) => lastId));
    for (const { sequence } of rows) stats.contextReached(sequence.length);
    const goesOn = this.#goesOn(rows);
    if (goesOn) this.#startAhead(rows);
    this.#aheadRows = goesOn ? rows : [];
    const ids = this.#ahead.finish();
    this.#aheadEndMs = performance.now();
    // A row whose answer ended with the token before gives nothing.
    const open = rows.flatMap((request, row) => request.finished ? [] : [{ request, id: ids[row] ?? NO_TOKEN }]);
    const places = open.map(({ request, id }) => id === NO_TOKEN ? this.#badPlaceAhead(request) : undefined);
    const seconds = (this.#aheadEndMs - startedMs) / 1000;
    return this.#deliverStep(open.map(({ request }) => request), open.map(({ id }) => id), places, seconds);
  }

  /** @param ids of the tokens to append; undefined for those of the step under way */
  #startAhead(rows: readonly Request[], ids?: readonly number[]): void {
    const sampling: StepSampling | undefined = rows.every(({ greedy }) => greedy)
      ? undefined
      : { sampler: this.context.sampler, samplers: rows.map(({ sampler }) => sampler) };
    this.#ahead.start(rows.map(({ sequence }) => sequence), ids, sampling);
  }

  /** Drops the step that was started behind the last token of the last of its requests. It did run, so it counts as a step. */
  #dropAhead(): void {
    if (this.#aheadRows.length === 0) return;
    this.#ahead.drop();
    this.#aheadRows = [];
    this.context.stats.decoded(0, 0);
  }

  /** Runs a request's part of the step again that gave it no token. */
  #badPlaceAhead({ sequence, lastId }: Request): string | undefined {
    const { decoder, pool, policy } = this.context;
    this.#ahead.wait(); // the step behind began without a token in this row, which the device would report to the next wait
    this.#ahead.leave(sequence);
    pool.truncate(sequence, sequence.length - 1);
    return this.#badPlacesOfStep(decoder.batch.advance([sequence], [lastId]), policy)[0];
  }

  /** @param ids of the tokens of a step by request @param badPlaces of those that have none @param seconds that the step took */
  #deliverStep(
    requests: readonly Request[],
    ids: readonly number[],
    badPlaces: readonly (string | undefined)[],
    seconds: number,
  ): BatchPiece[] {
    this.context.stats.decoded(ids.filter((id) => id !== NO_TOKEN).length, seconds);
    return requests.map((request, row) => {
      const id = ids[row] ?? NO_TOKEN;
      return this.#deliver(request, id === NO_TOKEN ? request.fail(numericError(badPlaces[row])) : request.accept(id));
    });
  }

  #deliver(request: Request, piece: Piece): BatchPiece {
    if (piece.finish) {
      if (this.#aheadRows.includes(request)) this.#ahead.leave(request.sequence);
      if (this.#aheadRows.every(({ finished }) => finished)) this.#dropAhead();
      request.release();
      this.context.stats.finished(piece.finish);
    }
    const verification = piece.finish && this.context.verifier?.finish(request);
    return { ...piece, ...verification && { verification }, index: request.index };
  }

  /** The first token after each prompt, from the hidden states `[N, H]` of its last one; NO_TOKEN if no logit is finite. */
  #sampleAfterPrompts(hidden: Tensor, requests: readonly Request[]): number[] {
    const { model } = this.context;
    // The CPU multiplies one token in another order than several, and an answer must not depend on the prompts that it was read with.
    const rows = model.device.backend === "cpu" ? 1 : requests.length;
    const ids: number[] = [];
    for (let first = 0; first < requests.length; first += rows) {
      const logits = model.logits(hidden.rows(first, rows));
      ids.push(...this.#sample(logits, model.best(logits), requests.slice(first, first + rows)));
    }
    return ids;
  }

  /** One token for each row of logits, NO_TOKEN for a row without a finite best one. */
  #sample(logits: Tensor, best: Tensor, requests: readonly Request[]): number[] {
    const draws = requests.some(({ greedy, sampler }) => !greedy && sampler.deviceSettings);
    const ids = draws
      ? this.context.sampler.sample(logits, requests.map(({ sampler }) => sampler))
      : Array.from(best.readInts());
    if (requests.every(({ sampler }) => sampler.deviceSettings)) return ids;
    const numbers = logits.readFloats();
    const { vocabSize } = this.context.model.config;
    return requests.map(({ sampler, history }, row) => {
      const id = ids[row] ?? NO_TOKEN;
      if (sampler.deviceSettings || id === NO_TOKEN) return id;
      return sampler.sample(numbers.subarray(row * vocabSize, (row + 1) * vocabSize), history);
    });
  }

  /** Computes the last chunk of a prompt again and looks at the hidden states after every layer. */
  async #badPlaceOfPrompt({ promptIds, sequence }: Request): Promise<string> {
    const { model: { activations }, pool, policy, prefill } = this.context;
    const start = Math.floor((promptIds.length - 1) / activations.maxTokens) * activations.maxTokens;
    const finite: boolean[] = [];
    const afterLayer = (_layer: number, hidden: Tensor): void => {
      finite.push(hidden.readFloats().every(Number.isFinite));
    };
    pool.truncate(sequence, sequence.length - (promptIds.length - start));
    await prefill.run(sequence, promptIds.slice(start), policy, { afterLayer });
    return `in the prompt of ${promptIds.length} tokens, ${firstBadLayer(finite)}`;
  }

  /** Runs a step again, which changes nothing, and looks at the hidden states of every row after every layer. */
  #badPlacesOfStep(step: DecodeStep, policy: PagePolicy): string[] {
    const { model, pool, stats } = this.context;
    const numRows = step.ids.shape[0] ?? 1;
    const finite = Array.from({ length: numRows }, (): boolean[] => []);
    model.decode(pool, policy, step, {
      afterLayer: (_layer, hidden) => {
        finite.forEach((layers, row) => layers.push(hidden.rows(row, 1).readFloats().every(Number.isFinite)));
      },
    });
    const number = stats.snapshot().decodeSteps + 1;
    return finite.map((layers) => `at decode step ${number}, ${firstBadLayer(layers)}`);
  }
}

/** Measures time, with pauses. */
class Stopwatch {
  #passedMs = 0;
  #started: number | undefined = performance.now();

  get seconds(): number {
    return (this.#passedMs + (this.#started === undefined ? 0 : performance.now() - this.#started)) / 1000;
  }

  stop(): void {
    this.#passedMs = 1000 * this.seconds;
    this.#started = undefined;
  }

  go(): void {
    this.#started = performance.now();
  }
}

/** `finite`: whether the hidden states were finite after each layer. */
function firstBadLayer(finite: readonly boolean[]): string {
  const layer = finite.indexOf(false);
  return `first in ${layer < 0 ? "the output projection" : `layer ${layer}`}`;
}

/** Most tokens of a request in the cache; the last generated one is never appended. */
export function longestTokens(
  { givenTokens, promptIds, maxTokens, limits }: Pick<Request, "givenTokens" | "promptIds" | "maxTokens" | "limits">,
): number {
  return Math.min(givenTokens + promptIds.length + Math.max(0, maxTokens - 1), limits.maxContext);
}

function numericError(where = "at a decode step"): string {
  return `The model gave logits that are not finite ${where}; check the weights, or use a copy of the model in f32`;
}
