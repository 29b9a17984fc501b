/** What every subject of the benchmark yields. Names are those of the JSON output, with their unit. */

export type Subject = "attention" | "generate" | "quality";

/** What a row was measured at. */
export interface Settings {
  subject: Subject;
  model?: string;
  batch: number;
  /** Quality: what was asked. */
  task?: string;
  /** Attention: tokens in the cache of every sequence. Quality: of the document. */
  context_tokens?: number;
  query_heads?: number;
  kv_heads?: number;
  head_dim?: number;
  /** Generate: one of the two, and the tokens in the cache before. */
  prompt_tokens?: number;
  decode_tokens?: number;
  depth_tokens?: number;
  dtype?: string;
  page_size?: number;
  budget_tokens?: number;
  scorer?: string;
}

/** How long one call, step or prompt took. */
export interface Timing {
  samples?: number;
  median_us: number;
  /** 10th and 90th percentile. */
  low_us?: number;
  high_us?: number;
}

/** How good the answers were. Intervals are of 95 %. */
export interface Quality {
  /** Questions, and those that were answered right; Wilson's interval. */
  trials?: number;
  right?: number;
  accuracy?: number;
  accuracy_low?: number;
  accuracy_high?: number;
  /** Right of asked in the first, middle and last third of the documents. */
  by_depth?: string;
  /** Nats a token, and the paired difference to dense. */
  loss?: number;
  loss_change?: number;
  loss_change_low?: number;
  loss_change_high?: number;
  /** Of dense from this arm, nats a token: the mean and the 99th percentile. */
  kl?: number;
  kl_p99?: number;
  /** Share of tokens where this arm and dense expect the same next token. */
  top1_agreement?: number;
  /** In what a sparse arm beats dense by more than noise: not expected, unless the model was trained to be read sparsely. */
  alarm?: string;
}

/** One line of a result. */
export interface Row extends Settings, Timing, Quality {
  /** What was timed: `dense`, `sparse`, a part of it, or another program. */
  arm: string;
  tokens_per_s?: number;
  /** That a call, step or prompt must read or write. */
  bytes?: number;
  gb_per_s?: number;
  /** `gb_per_s` over the bandwidth of a plain read that took turns with the arms. */
  of_peak?: number;
  peak_gb_per_s?: number;
  /** Speed over our dense arm of the same settings. */
  of_dense?: number;
  /** Bytes that come in turn before the first comes again. */
  rotated_bytes?: number;
  /** Pages of the exact-mass oracle that were chosen, forced ones aside: 0 to 1. */
  recall?: number;
  /** Softmax mass in the chosen pages and in the oracle's, forced ones included: 0 to 1. */
  mass_kept?: number;
  oracle_mass?: number;
  /** Pages read a row (sequence, layer, KV head), and those that dense reads, by the native counters. */
  pages_read?: number;
  pages_dense?: number;
  /** Recorded steps one after the other without a read between, us a step; where the device records. */
  queued_us?: number;
  /** Which program measured; ours where absent. */
  program?: string;
  /** Where another program measured, if not here. */
  device?: string;
  command?: string;
}

/** What a reader needs to run it again. */
export interface Provenance {
  version: string;
  commit: string;
  device: string;
  backend: "cpu" | "cuda";
  threads: number;
  /** Of the CPU's kernels. */
  instruction_set?: string;
  /** Of the GPU, where the system reports it. */
  driver?: string;
  model?: string;
  /** SHA-256 over the config and every weight file's name, size, first and last MiB; none for random weights. */
  model_sha256?: string;
  command: string;
  date: string;
  /** What else decides how to read the numbers, a sentence each. */
  notes: readonly string[];
}

/** Progress of a run. */
export interface Progress {
  /** Cells that are done, of all. */
  done: number;
  total: number;
  /** What is being measured. */
  label: string;
}

/** How a run reports progress, and how it is stopped. */
export interface Hooks {
  signal?: AbortSignal | undefined;
  onProgress?: (progress: Progress) => void;
}

/** The row without what is undefined, so that JSON and tables show what is there. */
export function definedOnly<T extends object>(row: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== undefined)) as T;
}
