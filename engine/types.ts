/**
 * How the pages of the KV cache are scored for a query:
 *
 * - `unique`: mean key plus the spread of the keys
 * - `diag`: mean key plus the variance of each dimension
 * - `quest`: upper bound from the minima and maxima of each dimension
 * - `mean`: mean key alone
 */
export type Scorer = "unique" | "diag" | "quest" | "mean";

/** Which pages of the KV cache a decode step reads. A model trained for sparse reading may bring other defaults. */
export interface SparseOptions {
  /**
   * `on` reads selected pages once a sequence has more pages than the budget, `auto` from the length on where that makes a step at least
   * 10 % faster on the device; `off` reads all pages. Default `auto`.
   */
  mode?: "auto" | "on" | "off";
  /** Tokens that attention reads per KV head and layer, a multiple of the page size. Default 1024. */
  budgetTokens?: number;
  /** Tokens per page: 8, 16, 32 or 64. Default 8. */
  pageSize?: number;
  /** How pages are scored. Default: what the model was trained for, else `diag`. */
  scorer?: Scorer;
  /** Weight of the spread, from 0, in `unique` (default 0.5) and `diag` (default 2). */
  lambda?: number;
  /** First pages of a sequence that are always read. Default 1. */
  sinkPages?: number;
  /** Last pages of a sequence that are always read. Default 2. */
  recentPages?: number;
  /** First layers that always read all pages. Default 0. */
  denseLayers?: number;
  /**
   * On CUDA, 2 scores groups of 8 pages first, then the pages of the best groups; for `diag`, copies of the statistics in 8 and 2 bits, then
   * the best pages again. 1 scores every page, as the CPU always does. Default 2 for `diag` and for models with a `sparsity.json`, else 1:
   * groups miss pages of models that were not trained.
   */
  levels?: number;
  /**
   * Which pages prompts read. `on`: tiles of 128 tokens read their own pages and, of those before, up to `prefillBudgetTokens`; `auto` does
   * so from the position on where it is faster, if the model or the caller sets `prefillBudgetTokens`; `off` reads all pages. Default `off`.
   */
  prefill?: "auto" | "on" | "off";
  /** Tokens before its own that a tile of a prompt reads per KV head and layer, a multiple of the page size. Default 4,096. */
  prefillBudgetTokens?: number;
}

/**
 * How a token is drawn from the logits. The defaults are those of a model whose `generation_config.json` does not set `do_sample`; one that
 * does brings its own temperature, top-k, top-p, min-p and repetition penalty. They apply unless they are given, and not at all beside a
 * temperature of 0.
 */
export interface SamplingOptions {
  /** Divides the logits; 0 always takes the most likely token. Default 0. */
  temperature?: number;
  /** Keeps the k most likely tokens; 0 keeps all. Default 0. */
  topK?: number;
  /** Keeps the smallest set of tokens whose probabilities sum to this, in (0, 1]. Default 1. */
  topP?: number;
  /** Drops tokens less likely than this share of the most likely one, in [0, 1]. Default 0. */
  minP?: number;
  /** Divides the positive and multiplies the negative logits of tokens among the last `repeatLastTokens`; 1 is off. Default 1. */
  repeatPenalty?: number;
  /** Latest tokens that the repetition penalty looks at. Default 64. */
  repeatLastTokens?: number;
  /** Unsigned 32-bit integer; the same seed gives the same text. Default: random. */
  seed?: number;
}

/** Progress of the prefill of one prompt. */
export interface PrefillProgress {
  /** Prompt tokens that are in the KV cache. */
  doneTokens: number;
  /** Those of them that an earlier prompt left there, or on disk. */
  reusedTokens: number;
  /** Prompt tokens. */
  totalTokens: number;
  /** Time since prefill started: of the prompt, or of the short prompts that are read together. */
  seconds: number;
}

/** How decode steps are compared with dense ones, to see whether a budget suits a text. */
export interface VerifyOptions {
  /** Every Nth decode step of the run is also computed densely, beginning with the first. Default 1. */
  every?: number;
  /**
   * Largest accepted KL divergence of dense from sparse decoding, in nats. A step beyond it takes the dense logits, and the batch reads
   * densely until a verified step of the request is within the limit again. Default: none.
   */
  limit?: number;
}

/** What the comparison with dense steps found. Steps are decode steps of requests: a step of a batch of 3 counts 3 times. */
export interface Verification {
  /** Steps that were computed densely and sparsely. */
  steps: number;
  /** Those of them where dense and sparse decoding have the same most likely token. */
  agreed: number;
  /** Mean KL divergence of dense from sparse decoding, in nats; undefined without verified steps. */
  meanKl?: number;
  /** Largest KL divergence, in nats; undefined without verified steps. */
  maxKl?: number;
  /** First verified step of a request, from 1, at which the most likely token differs; step n gives token n + 1 of the answer. */
  firstDifference?: number;
  /** Steps that were due and not verified, because they read all pages anyway. */
  skipped: number;
  /** Verified steps that exceeded the limit. */
  overLimit: number;
  /** Steps that read densely because of the limit. */
  denseSteps: number;
}

/** {@link Verification} of all requests of a run; `firstDifference` is the smallest of the requests. */
export interface RunVerification extends Verification {
  /** Every Nth step was verified. */
  every: number;
  /** The limit in force, in nats; undefined without one. */
  limit?: number;
  /** Time that verification took, part of `decodeSeconds`. */
  seconds: number;
}

/** Options of one generation. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate. Default 256. */
  maxTokens?: number;
  /** Texts that end the generation. They are not part of the output. */
  stop?: string[];
  /** Ends the generation between two steps, with finish reason `aborted`. */
  signal?: AbortSignal;
  /** Overrides the sparse options of the engine, field by field. */
  sparse?: SparseOptions;
  /** Compares decode steps with dense ones. Default: off. */
  verify?: VerifyOptions;
  /** Called after every prefill chunk. */
  onPrefill?: (progress: PrefillProgress) => void;
}

/**
 * Why a generation ended:
 *
 * - `stop`: the model generated an end token, or the text contains a stop string
 * - `length`: `maxTokens` tokens
 * - `context`: the context is full
 * - `aborted`: the signal
 * - `kv_exhausted`: no free page in the KV cache
 * - `numeric`: logits that are not finite
 */
export type FinishReason = "stop" | "length" | "context" | "aborted" | "kv_exhausted" | "numeric";

/** One generated token and the text that it completes. */
export interface Piece {
  /** The token id; -1 on the last piece of a generation that was aborted, ran out of pages or failed. */
  id: number;
  /** Empty while a character, or what may be a stop string, is incomplete. */
  text: string;
  /** On the last piece of a generation only, whose `text` also contains everything that was held back. */
  finish?: FinishReason;
  /** With finish reason `numeric`: what happened, in one line. */
  error?: string;
  /** On the last piece, if the run verifies: what it found about this generation. */
  verification?: Verification;
}

/** One request of a batch. */
export interface GenerateRequest {
  /** Text, to which the tokenizer adds special tokens such as BOS; or token ids, used as they are. */
  prompt: string | readonly number[];
  /** Options of this request. */
  options?: Omit<GenerateOptions, "signal" | "sparse" | "verify" | "onPrefill">;
}

/** A piece of one request of a batch. */
export interface BatchPiece extends Piece {
  /** Place of the request in the batch, from 0. */
  index: number;
}

/** A fact about the loaded model or its device that users should know, such as a part of a file that is ignored. */
export interface Notice {
  /** `info` requires no action. */
  level: "warning" | "info";
  /** One line without a final period. */
  text: string;
}

/**
 * What the latest `generate` or `generateBatch` did, summed over its requests. The native library counts pages, summed over layers, KV
 * heads and steps.
 */
export interface EngineStats {
  /** Backend with instruction set and threads, or with the GPU's name. */
  device: string;
  /** Tokens of all prompts. */
  promptTokens: number;
  /** Prompt tokens whose keys and values an earlier prompt left in the KV cache, or on disk. */
  reusedTokens: number;
  /** Prompt tokens that prefill processed. */
  prefillTokens: number;
  /** Time in prefill. Prompts that are read together count once. */
  prefillSeconds: number;
  /** Tokens that decode steps generated. */
  decodeTokens: number;
  /** Time in decode steps. */
  decodeSeconds: number;
  /** Time from the call to the first token. */
  firstTokenSeconds: number;
  /** Decode steps, with one that had started behind the last token of an answer, as on CUDA. */
  decodeSteps: number;
  /** Decode steps that left out at least one page. */
  selectedSteps: number;
  /**
   * Tokens from which on mode `auto` selects pages for a sequence alone; null where it does at no length up to `maxContext`, undefined in
   * other modes.
   */
  selectsFromTokens?: number | null;
  /** KV pages that decode attention read. */
  pagesRead: number;
  /** KV pages that dense attention would have read. */
  pagesDense: number;
  /** Bytes of keys and values in `pagesRead`. */
  bytesRead: number;
  /** Bytes of keys and values in `pagesDense`. */
  bytesDense: number;
  /** KV pages that tiles of prompts read where they selected, summed over tiles. */
  promptPagesRead: number;
  /** KV pages that these tiles would have read with dense attention. */
  promptPagesDense: number;
  /** Bytes of page statistics that scoring read in addition to `bytesRead`. */
  statisticsBytes: number;
  /** Most bytes of the KV cache in use at once. */
  peakKvBytes: number;
  /** Bytes of the model's weights on the device. */
  weightBytes: number;
  /** Tokens of the longest sequence, prompt included. */
  contextTokens: number;
  /** Limit of a sequence in tokens. */
  maxContext: number;
  /** Why the request that ended last ended; undefined before that. */
  finishReason: FinishReason | undefined;
  /** With a prompt cache: what was loaded from it and saved in it. */
  promptCache?: SavedPromptStats;
  /** If the run verifies: what it found so far. */
  verification?: RunVerification;
}

/** What a run loaded from the prompt cache and saved in it. */
export interface SavedPromptStats {
  /** Prompt tokens that were loaded; part of `reusedTokens`. */
  loadedTokens: number;
  /** Bytes of the files that were loaded. */
  loadedBytes: number;
  /** Time until the prompts were loaded. */
  loadSeconds: number;
  /** Prompt tokens that were saved. */
  savedTokens: number;
  /** Bytes of the files that were written. */
  savedBytes: number;
  /** Time that saving took after the last answer; the rest overlaps with generating. */
  saveSeconds: number;
}
