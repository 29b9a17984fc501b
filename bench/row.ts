/** Rows of every subject of the benchmark. Names are those of the JSON output and contain their unit. */

export type Subject = "attention" | "generate" | "quality";

/** The settings of a row. */
export interface Settings {
  subject: Subject;
  model?: string;
  batch: number;
  /** Quality: the task. */
  task?: string;
  /** Attention: tokens in the cache of every sequence. Quality: tokens of the document. */
  context_tokens?: number;
  query_heads?: number;
  kv_heads?: number;
  head_dim?: number;
  /** Generate: one of the two, and the tokens in the cache before it. */
  prompt_tokens?: number;
  decode_tokens?: number;
  depth_tokens?: number;
  dtype?: string;
  page_size?: number;
  budget_tokens?: number;
  scorer?: string;
}

/** The time of one call, step or prompt. */
export interface Timing {
  samples?: number;
  median_us: number;
  /** 10th and 90th percentile. */
  low_us?: number;
  high_us?: number;
}

/** The quality of answers and predictions, with 95 % intervals. */
export interface Quality {
  /** Questions, and correct answers with Wilson's interval. */
  trials?: number;
  right?: number;
  accuracy?: number;
  accuracy_low?: number;
  accuracy_high?: number;
  /** Correct answers in the first, middle and last third of the documents. */
  by_depth?: string;
  /** Mean score of the answers, 0 to 1, and its paired difference to dense. */
  score?: number;
  score_change?: number;
  score_change_low?: number;
  score_change_high?: number;
  /** Nats per token, and the paired difference to dense. */
  loss?: number;
  loss_change?: number;
  loss_change_low?: number;
  loss_change_high?: number;
  /** KL of dense from this arm, nats per token: mean and 99th percentile. */
  kl?: number;
  kl_p99?: number;
  /** Share of tokens for which this arm and dense predict the same next token. */
  top1_agreement?: number;
  /** Where a sparse arm beats dense by more than noise; unexpected unless the model was trained for sparse reading. */
  alarm?: string;
}

/** One row of a result. */
export interface Row extends Settings, Timing, Quality {
  /** What was timed: `dense`, `sparse`, a part of sparse, or another program. */
  arm: string;
  tokens_per_s?: number;
  /** Bytes that a call, step or prompt must read or write. */
  bytes?: number;
  gb_per_s?: number;
  /** `gb_per_s` over the bandwidth of a plain read that alternated with the arms. */
  of_peak?: number;
  peak_gb_per_s?: number;
  /** Speed over our dense arm with the same settings. */
  of_dense?: number;
  /** Bytes that calls touch before the same memory comes again. */
  rotated_bytes?: number;
  /** Share of the oracle's pages that were selected, without those that are always read: 0 to 1. */
  recall?: number;
  /** Softmax mass in the selected pages and in the oracle's, always-read pages included: 0 to 1. */
  mass_kept?: number;
  oracle_mass?: number;
  /** Pages read per row (sequence, layer, KV head), and pages that dense reads, by the native counters. */
  pages_read?: number;
  pages_dense?: number;
  /** Recorded steps back to back without a read between them, us per step; only if the device supports recording. */
  queued_us?: number;
  /** The program that was measured; ours if absent. */
  program?: string;
  /** The device of another program, if it differs. */
  device?: string;
  command?: string;
}

/** What a reader needs to reproduce the run. */
export interface Provenance {
  version: string;
  commit: string;
  device: string;
  backend: "cpu" | "cuda";
  threads: number;
  /** Instruction set of the CPU kernels. */
  instruction_set?: string;
  /** Driver version of the GPU, if the system reports it. */
  driver?: string;
  model?: string;
  /** SHA-256 over the config and the name, size, first and last MiB of every weight file; none for random weights. */
  model_sha256?: string;
  command: string;
  date: string;
  /** Anything else that affects how to read the numbers, one sentence each. */
  notes: readonly string[];
}

/** Progress of a run. */
export interface Progress {
  /** Finished cells, and all cells. */
  done: number;
  total: number;
  /** The current measurement. */
  label: string;
}

/** How a run reports progress and how it stops. */
export interface Hooks {
  signal?: AbortSignal | undefined;
  onProgress?: (progress: Progress) => void;
}

/** The row without undefined fields, so that JSON and tables contain only values. */
export function definedOnly<T extends object>(row: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined)) as T;
}
