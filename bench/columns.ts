/** The columns of a table for people: which fields of a row they show, and how. */
import type { Row } from "./row.ts";

export interface Column {
  title: string;
  /** If all rows share the value, it moves from the table to the line above it. */
  setting?: boolean;
  show: (row: Row) => string | undefined;
}

function whole(value: number | undefined): string | undefined {
  return value === undefined ? undefined : Math.round(value).toLocaleString("en-US");
}

/** At least three significant digits, with separated thousands. */
export function short(value: number): string {
  const digits = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {
    maximumFractionDigits: Math.min(digits, 6),
    minimumFractionDigits: Math.min(digits, 2),
  });
}

function optional(value: number | undefined, show: (value: number) => string): string | undefined {
  return value === undefined ? undefined : show(value);
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
const times = (value: number): string => `${value.toFixed(2)} x`;

const signed = (value: number): string => `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(4)}`;
/** A difference of two shares, in hundredths. */
const points = (value: number): string => `${value < 0 ? "-" : "+"}${Math.abs(100 * value).toFixed(1)}`;

function interval(
  low: number | undefined,
  high: number | undefined,
  show: (value: number) => string,
): string | undefined {
  return low === undefined || high === undefined ? undefined : `${show(low)} to ${show(high)}`;
}

/** `tg128 @ d32768`, as llama-bench names its tests. */
export function testName(
  { prompt_tokens: prompt, decode_tokens: decode, depth_tokens: depth = 0 }: Row,
): string | undefined {
  const name = prompt !== undefined ? `pp${prompt}` : decode !== undefined ? `tg${decode}` : undefined;
  return name && (depth > 0 ? `${name} @ d${depth}` : name);
}

export const COLUMNS: readonly Column[] = [
  { title: "model", setting: true, show: (row) => row.model },
  { title: "test", show: testName },
  { title: "task", show: (row) => row.task },
  { title: "context", setting: true, show: (row) => whole(row.context_tokens) },
  { title: "batch", setting: true, show: (row) => whole(row.batch) },
  {
    title: "heads",
    setting: true,
    show: ({ query_heads: query, kv_heads: kv, head_dim: dim }) => query && `${query}/${kv} of ${dim}` || undefined,
  },
  { title: "dtype", setting: true, show: (row) => row.dtype },
  { title: "page", setting: true, show: (row) => whole(row.page_size) },
  { title: "arm", show: (row) => row.arm },
  { title: "scorer", show: (row) => row.scorer },
  { title: "budget", show: (row) => whole(row.budget_tokens) },
  { title: "us", show: (row) => short(row.median_us) },
  {
    title: "p10 to p90",
    show: ({ low_us: low, high_us: high }) => low && high ? `${short(low)} to ${short(high)}` : undefined,
  },
  { title: "tokens/s", show: (row) => optional(row.tokens_per_s, short) },
  { title: "MB", show: (row) => optional(row.bytes, (bytes) => short(bytes / 1e6)) },
  { title: "GB/s", show: (row) => optional(row.gb_per_s, short) },
  { title: "of peak", show: (row) => optional(row.of_peak, percent) },
  { title: "peak GB/s", setting: true, show: (row) => optional(row.peak_gb_per_s, short) },
  { title: "speed / dense", show: (row) => optional(row.of_dense, times) },
  { title: "correct", show: ({ right, trials }) => trials === undefined ? undefined : `${right} of ${trials}` },
  {
    title: "95 %",
    show: ({ accuracy_low: low, accuracy_high: high }) => interval(low, high, (value) => `${Math.round(100 * value)}`),
  },
  { title: "score", show: (row) => optional(row.score, percent) },
  { title: "score - dense", show: (row) => optional(row.score_change, points) },
  {
    title: "95 % of it",
    show: ({ score_change_low: low, score_change_high: high }) => interval(low, high, points),
  },
  { title: "by depth", show: (row) => row.by_depth },
  { title: "loss", show: (row) => optional(row.loss, (value) => value.toFixed(4)) },
  { title: "loss - dense", show: (row) => optional(row.loss_change, signed) },
  {
    title: "95 % of it",
    show: ({ loss_change_low: low, loss_change_high: high }) => interval(low, high, signed),
  },
  { title: "KL", show: (row) => optional(row.kl, (value) => value.toFixed(4)) },
  { title: "KL p99", show: (row) => optional(row.kl_p99, (value) => value.toFixed(3)) },
  { title: "same top", show: (row) => optional(row.top1_agreement, percent) },
  { title: "queued us", show: (row) => optional(row.queued_us, short) },
  { title: "page recall", show: (row) => optional(row.recall, percent) },
  { title: "mass retained", show: (row) => optional(row.mass_kept, percent) },
  { title: "oracle mass", show: (row) => optional(row.oracle_mass, percent) },
  { title: "rotated MB", show: (row) => optional(row.rotated_bytes, (bytes) => short(bytes / 1e6)) },
  { title: "alarm", show: (row) => row.alarm },
  { title: "measured on", show: (row) => row.device },
];
