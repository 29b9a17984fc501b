import type { Counters } from "../ffi/structs.ts";
import { Decoder, stepShapeOf } from "./decoder.ts";
import { eventLoopYield } from "./event_loop.ts";
import { Generation } from "./generation.ts";
import type { LoadedModel } from "./loaded_model.ts";
import { checkCacheFits } from "./memory.ts";
import type { DecodeHooks, PrefillHooks } from "./model.ts";
import { cacheShape, type ExtraStatistics, KvPool, type PoolNeed } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import { selectsFrom } from "./pages/selection_cost.ts";
import type { Sequence } from "./pages/sequence.ts";
import { type OnChunk, Prefill } from "./prefill.ts";
import type { Request } from "./request.ts";
import { type EngineFacts, RunStats } from "./run_stats.ts";
import { AheadSteps } from "./ahead_steps.ts";
import { NativeSampler } from "./sample/native_sampler.ts";
import type { StepObserver } from "./decode_batch.ts";
import type { StepResult } from "./step_runner.ts";
import type { BatchPiece, EngineStats, PrefillProgress, VerifyOptions } from "./types.ts";
import { Verifier } from "./verifier.ts";

/** How a session runs requests. */
export interface RunOptions {
  /** Ends the run between two steps, with finish reason `aborted`. */
  signal?: AbortSignal | undefined;
  onPrefill?: ((progress: PrefillProgress, index: number) => void) | undefined;
  /** Sees every decode step; such a run verifies none. */
  observer?: StepObserver | undefined;
  /** Compares decode steps with dense ones. */
  verify?: VerifyOptions | undefined;
  /** Requests that run at the same time at most. Default: as many sequences as the session has. */
  parallel?: number | undefined;
  /** Sees what tiles of prompts select. */
  afterSelection?: PrefillHooks["afterSelection"];
}

/** Options of {@link Session.prefill}. */
export interface PrefillOptions {
  signal?: AbortSignal | undefined;
  onChunk?: OnChunk;
  /** Default: the session's. */
  policy?: PagePolicy;
  afterSelection?: PrefillHooks["afterSelection"];
}

/** Policies whose decoders a session caches; a caller that alternates between more policies records steps again. */
const MAX_DECODERS = 16;

/**
 * A KV cache of a loaded model and everything that runs over it. All runs of a model pass through here: each reserves the model while
 * it computes, so two sessions of one model never overwrite each other's activations.
 */
export class Session implements Disposable {
  readonly pool: KvPool;
  readonly #owned = new DisposableStack();
  readonly #decoders = new Map<string, Decoder>();
  #prefill: Prefill | undefined;
  #sampler: NativeSampler | undefined;
  #stats: RunStats | undefined;
  #verifier: Verifier | undefined;

  private constructor(readonly loaded: LoadedModel, readonly policy: PagePolicy, pool: KvPool) {
    this.pool = this.#owned.use(pool);
  }

  /**
   * Allocates a cache. Its page size and groups are the policy's; steps may follow any policy that agrees with it in these.
   *
   * @throws {PagesiftError} of kind "memory" that says what would fit
   */
  static open(loaded: LoadedModel, policy: PagePolicy, need: PoolNeed, extra?: ExtraStatistics): Session {
    const { device, config, kv, facts } = loaded;
    const shape = cacheShape(config, kv, policy, need, extra);
    loaded.model.reserve(need.maxSequences);
    checkCacheFits(device, shape, facts.weightBytes);
    return new Session(loaded, policy, new KvPool(device, shape));
  }

  /** What stays the same for all runs of the model. */
  get facts(): EngineFacts {
    return this.loaded.facts;
  }

  /** Whether this session's cache fits such a policy and need. */
  serves(policy: PagePolicy, need: PoolNeed): boolean {
    return this.pool.covers(cacheShape(this.loaded.config, this.loaded.kv, policy, need));
  }

  /** Tokens that the cache has room for. */
  get poolTokens(): number {
    return this.pool.shape.numPages * this.pool.shape.pageSize;
  }

  /** Whether a later prompt may begin with pages of an earlier one. */
  get remembersPrompts(): boolean {
    return this.pool.prefixes.size > 0;
  }

  /** Copies the prompts that another session remembers, as far as there is room and if its pages have the same contents. */
  takeOver(other: Session): void {
    this.pool.takeOver(other.pool);
  }

  openSequence(): Sequence {
    return this.pool.openSequence();
  }

  /**
   * Appends ids to a sequence, chunk by chunk. If the sequence is empty and nobody looks at the chunks, what is saved
   * of the ids is loaded and the rest is saved.
   *
   * @throws {Aborted} once the signal is aborted, {PagesiftError} of kind "usage" while the model runs something else
   */
  async prefill(
    sequence: Sequence,
    ids: readonly number[],
    { signal, onChunk, policy = this.policy, afterSelection }: PrefillOptions = {},
  ): Promise<void> {
    using _lock = this.loaded.lock();
    const hooks = { yieldToEventLoop: eventLoopYield(signal), afterSelection };
    this.pool.readPromptsBy(policy);
    const saved = sequence.length === 0 && onChunk === undefined ? this.loaded.savedPrompts : undefined;
    saved?.begin();
    await saved?.load(this.pool, sequence, ids, hooks.yieldToEventLoop);
    await this.#prefiller().run(sequence, saved ? ids.slice(sequence.length) : ids, policy, hooks, onChunk);
    await this.loaded.device.wait();
    saved?.save(this.pool, sequence, ids);
    await saved?.finish();
  }

  /**
   * Appends one token to each sequence and computes what follows. The result is valid until the model's next step.
   *
   * @throws {PagesiftError} of kind "usage" while the model runs something else
   */
  step(
    sequences: readonly Sequence[],
    ids: readonly number[],
    policy: PagePolicy = this.policy,
    hooks?: DecodeHooks,
  ): StepResult {
    using _lock = this.loaded.lock();
    return this.#decoder(policy).run(sequences, ids, hooks);
  }

  /** Steps that start before the tokens before are read, as those of {@link generate} do; undefined where the device cannot. For measuring. */
  aheadSteps(policy: PagePolicy = this.policy): AheadSteps | undefined {
    return this.loaded.model.canRunAhead ? new AheadSteps(this.#decoder(policy)) : undefined;
  }

  /** Starts the latest recorded step under a policy again, for measuring. False if the device did not record it. */
  replay(policy: PagePolicy): boolean {
    using _lock = this.loaded.lock();
    return this.#decoder(policy).replay();
  }

  /** Shortens a sequence to `length` tokens and updates the statistics of its last page. */
  truncate(sequence: Sequence, length: number): void {
    this.pool.truncate(sequence, length);
  }

  /**
   * Runs requests as one batch, which further requests join as they arrive. {@link stats} is about this run from here on.
   *
   * @throws {PagesiftError} of kind "usage" while the model runs something else
   */
  async *generate(
    requests: readonly Request[] | AsyncIterable<Request>,
    policy: PagePolicy = this.policy,
    { verify, ...options }: RunOptions = {},
  ): AsyncGenerator<BatchPiece> {
    using _lock = this.loaded.lock();
    const parts = { prefill: this.#prefiller(), decoder: this.#decoder(policy), sampler: this.#nativeSampler() };
    const { model, savedPrompts } = this.loaded;
    this.pool.readPromptsBy(policy);
    savedPrompts?.begin();
    const stats = this.#stats = new RunStats(this.facts, this.pool, policy, savedPrompts, this.#selectsFrom(policy));
    const verifier = this.#verifier = verify && new Verifier(parts.decoder, stats, verify);
    const context = { model, pool: this.pool, policy, stats, savedPrompts, verifier, ...parts, ...options };
    yield* new Generation(context, requests).run();
  }

  /** What the latest {@link generate} did, or undefined before the first. */
  get stats(): EngineStats | undefined {
    const stats = this.#stats?.snapshot();
    return stats && this.#verifier ? { ...stats, verification: this.#verifier.report() } : stats;
  }

  counters(): Counters {
    return this.pool.cache.counters();
  }

  /** Tokens from which on mode `auto` selects, null where it never does; undefined in other modes. */
  #selectsFrom(policy: PagePolicy): number | null | undefined {
    if (!policy.onlyIfFaster) return undefined;
    const { model, config } = this.loaded;
    const from = selectsFrom(stepShapeOf(model, this.pool, policy), policy, config.maxContext);
    return Number.isFinite(from) ? from : null;
  }

  #prefiller(): Prefill {
    return this.#prefill ??= this.#owned.use(new Prefill(this.loaded.model, this.pool));
  }

  #nativeSampler(): NativeSampler {
    return this.#sampler ??= this.#owned.use(new NativeSampler(this.loaded.device, this.pool.shape.maxSequences));
  }

  #decoder(policy: PagePolicy): Decoder {
    const key = keyOf(policy);
    let decoder = this.#decoders.get(key);
    if (!decoder) {
      this.#dropDecoders(MAX_DECODERS - 1);
      decoder = new Decoder(this.loaded.model, this.pool, policy);
      this.#decoders.set(key, decoder);
    }
    return decoder;
  }

  /** Closes the oldest decoders until `most` are left. */
  #dropDecoders(most: number): void {
    for (const [key, decoder] of this.#decoders) {
      if (this.#decoders.size <= most) return;
      decoder[Symbol.dispose]();
      this.#decoders.delete(key);
    }
  }

  /** Frees the cache and everything over it. */
  [Symbol.dispose](): void {
    this.#dropDecoders(0);
    this.#owned.dispose();
  }
}

const keys = new WeakMap<PagePolicy, string>();

/** The same text for policies that read the same pages. */
function keyOf(policy: PagePolicy): string {
  let key = keys.get(policy);
  if (key === undefined) keys.set(policy, key = JSON.stringify(policy));
  return key;
}
