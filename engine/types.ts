/** How pages are scored (design section 1; tests/fixtures/unique holds the reference values). */
export type Scorer = "unique" | "diag" | "quest" | "mean";

/** Which pages a decode step reads. */
export interface SparseOptions {
  /** `auto` and `on` read selected pages once a sequence has more pages than the budget; `off` reads all. Default `auto`. */
  mode?: "auto" | "on" | "off";
  /** Tokens that attention reads a KV head, a multiple of the page size. Default 512. */
  budgetTokens?: number;
  /** Tokens a page: 8, 16, 32 or 64. Default 8. */
  pageSize?: number;
  /** Default `unique`. */
  scorer?: Scorer;
  /** Weight of the spread in `unique` (default 0.5) and `diag` (default 4). */
  lambda?: number;
  /** First pages that are always read. Default 1. */
  sinkPages?: number;
  /** Last pages that are always read. Default 2. */
  recentPages?: number;
  /** First layers that always read all pages. Default 0. */
  denseLayers?: number;
  /**
   * On CUDA, with `unique` and `mean`: 2 scores groups of 8 pages first, then the pages of the best groups; 1 scores every page, as the
   * CPU always does. Default 2.
   */
  levels?: number;
}

/**
 * How a token is drawn from the logits. The defaults are those of a model whose `generation_config.json` does not set `do_sample`; one that
 * does brings its own temperature, top-k, top-p, min-p and repetition penalty. They apply unless they are given, and not at all beside a
 * temperature of 0.
 */
export interface SamplingOptions {
  /** 0 takes the most likely token. Default 0. */
  temperature?: number;
  /** Keep the k most likely tokens; 0 keeps all. Default 0. */
  topK?: number;
  /** Keep the smallest set of tokens whose probabilities sum to this, in (0, 1]. Default 1. */
  topP?: number;
  /** Drop tokens less likely than this share of the most likely one, in [0, 1]. Default 0. */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens seen in the last `repeatLastTokens`; 1 is off. Default 1. */
  repeatPenalty?: number;
  /** How many of the latest tokens the repetition penalty looks at. Default 64. */
  repeatLastTokens?: number;
  /** Unsigned 32-bit; the same seed gives the same text. Default: drawn at random. */
  seed?: number;
}

/** Progress of the dense prefill of one prompt. */
export interface PrefillProgress {
  doneTokens: number;
  totalTokens: number;
  seconds: number;
}

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most. Default 256. */
  maxTokens?: number;
  /** Text that ends the generation; it is not part of the output. */
  stop?: string[];
  /** Ends the generation between two steps, with finish reason `aborted`. */
  signal?: AbortSignal;
  sparse?: SparseOptions;
  /** Called after every prefill chunk. */
  onPrefill?: (progress: PrefillProgress) => void;
}

/**
 * Why a generation ended: EOS or a stop string, `maxTokens`, the model's context, the signal, no free page in the KV pool, logits that
 * are not finite.
 */
export type FinishReason = "stop" | "length" | "context" | "aborted" | "kv_exhausted" | "numeric";

/** One generated token and the text that became whole with it (empty while a character or a stop string is still open). */
export interface Piece {
  /** The token, or -1 on the piece that closes an aborted, exhausted or failed generation and brings none. */
  id: number;
  text: string;
  /** On the last piece of a generation only. Its `text` then also holds everything that was held back. */
  finish?: FinishReason;
  /** With finish reason `numeric`: what happened, in one line. */
  error?: string;
}

/** One request of a batch; `prompt` is text, encoded with special tokens, or token ids. */
export interface GenerateRequest {
  prompt: string | readonly number[];
  options?: Omit<GenerateOptions, "signal" | "sparse" | "onPrefill">;
}

/** A piece of request `index` of a batch. */
export interface BatchPiece extends Piece {
  index: number;
}

/** Something about a loaded model or its device that people should know. */
export interface Notice {
  /** `info` needs no action and is for those who ask for details. */
  level: "warning" | "info";
  text: string;
}

/** What the latest `generate` or `generateBatch` did. Pages are counted natively, summed over layers and KV heads. */
export interface EngineStats {
  device: string;
  promptTokens: number;
  prefillTokens: number;
  prefillSeconds: number;
  decodeTokens: number;
  decodeSeconds: number;
  /** Time from the call to the first token. */
  firstTokenSeconds: number;
  /** Decode steps, and those in which at least one page was left out. */
  decodeSteps: number;
  selectedSteps: number;
  /** KV pages that decode attention read, and that dense attention would have read. */
  pagesRead: number;
  pagesDense: number;
  /** The same in bytes of keys and values; `statisticsBytes` were read on top of `bytesRead` to score pages. */
  bytesRead: number;
  bytesDense: number;
  statisticsBytes: number;
  peakKvBytes: number;
  weightBytes: number;
  contextTokens: number;
  maxContext: number;
  finishReason: FinishReason | undefined;
}
