import { PagesiftError } from "./errors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { Sampler } from "./sample/sampler.ts";
import type { Sequence } from "./pages/sequence.ts";
import { StopStrings } from "./text/stop_strings.ts";
import type { TextStream } from "./text/text_stream.ts";
import type { FinishReason, GenerateRequest, Piece } from "./types.ts";

/** The id of a final piece without a token. */
export const NO_TOKEN = -1;
export const DEFAULT_MAX_TOKENS = 256;
/** Requests that decode together at most. */
export const MAX_BATCH = 256;

/** Limits that do not depend on the request. */
export interface RequestLimits {
  eosTokenIds: readonly number[];
  /** Tokens. */
  maxContext: number;
}

/** @throws {PagesiftError} of kind "usage" */
function checkMaxTokens(maxTokens: number | undefined): void {
  if (maxTokens === undefined || (Number.isSafeInteger(maxTokens) && maxTokens >= 1)) return;
  throw new PagesiftError("usage", `maxTokens is ${maxTokens}, expected a whole number from 1`);
}

/**
 * One request: the tokens so far, and the piece of text for each next token. The constructor checks the options, before any memory
 * is allocated.
 */
export class Request {
  readonly sampler: Sampler;
  /** Prompt and generated tokens. */
  readonly history: number[];
  readonly maxTokens: number;
  readonly #stops: StopStrings;
  #numGenerated = 0;
  #finish: FinishReason | undefined;
  #sequence: Sequence | undefined;

  constructor(
    readonly index: number,
    readonly promptIds: readonly number[],
    options: NonNullable<GenerateRequest["options"]>,
    readonly stream: TextStream,
    readonly limits: RequestLimits,
    /** Where its tokens go. Default: a sequence that is opened when the request starts and released when it ends. */
    readonly given?: Sequence,
  ) {
    checkMaxTokens(options.maxTokens);
    this.#sequence = given;
    this.givenTokens = given?.length ?? 0;
    this.sampler = new Sampler(options);
    this.#stops = new StopStrings(options.stop ?? []);
    this.maxTokens = options.maxTokens ?? DEFAULT_MAX_TOKENS;
    this.history = [...promptIds];
    this.greedy = (options.temperature ?? 0) === 0 && (options.repeatPenalty ?? 1) === 1;
  }

  /** Tokens in the given sequence before those of the prompt. */
  readonly givenTokens: number;
  /** Whether the request only requires the most likely token. */
  readonly greedy: boolean;

  /** The request's place in the cache. @throws {Error} before it starts */
  get sequence(): Sequence {
    if (!this.#sequence) throw new Error(`Request ${this.index} has not started`);
    return this.#sequence;
  }

  /** Opens a sequence in the cache, which contains what the cache still has of the prompt. */
  start(pool: Pick<KvPool, "openSequence">): void {
    this.#sequence ??= pool.openSequence(this.promptIds);
  }

  /** Frees the pages, unless the caller passed the sequence. */
  release(): void {
    if (!this.given) this.#sequence?.release();
  }

  get finished(): boolean {
    return this.#finish !== undefined;
  }

  /** The token that the next step appends. */
  get lastId(): number {
    return this.history.at(-1) ?? NO_TOKEN;
  }

  /** Whether a token that is computed now, beyond those that were accepted, is not the last one because of a limit. */
  get goesOn(): boolean {
    return this.#numGenerated + 1 < this.maxTokens && this.sequence.length + 1 < this.limits.maxContext;
  }

  /** Adds a sampled token and returns the piece that becomes visible with it. */
  accept(id: number): Piece {
    this.history.push(id);
    this.#numGenerated++;
    if (this.limits.eosTokenIds.includes(id)) return this.#close(id, "", "stop");
    const { text, stopped } = this.#stops.push(this.stream.push(id));
    if (stopped) return this.#close(id, text, "stop", true);
    if (this.#numGenerated >= this.maxTokens) return this.#close(id, text, "length");
    if (this.sequence.length >= this.limits.maxContext) return this.#close(id, text, "context");
    return { id, text };
  }

  /** Ends a request early, with the text that was held back. */
  abort(reason: "aborted" | "kv_exhausted" = "aborted"): Piece {
    return this.#close(NO_TOKEN, "", reason);
  }

  /** Ends a request whose logits are not finite, with the text that was held back. */
  fail(error: string): Piece {
    return { ...this.#close(NO_TOKEN, "", "numeric"), error };
  }

  #close(id: number, text: string, finish: FinishReason, stopped = false): Piece {
    this.#finish = finish;
    if (stopped) return { id, text, finish };
    const last = this.#stops.push(this.stream.flush());
    const held = last.stopped ? "" : this.#stops.flush();
    return { id, text: text + last.text + held, finish };
  }
}
