/** Every field of a row: its order in CSV, and which fields a peer row may contain. */
import type { Row } from "./row.ts";

/** `count` is a whole number of at least `least`. */
export type FieldKind =
  | { type: "text"; most: number }
  | { type: "count"; least: number }
  | { type: "number" };

export interface Field {
  name: keyof Row;
  kind: FieldKind;
  /** Whether peer rows may or must contain it. */
  peer?: "may" | "must";
  only?: "attention" | "generate";
}

const text: FieldKind = { type: "text", most: 400 };
const label: FieldKind = { type: "text", most: 40 };
const number: FieldKind = { type: "number" };
const count = (least: number): FieldKind => ({ type: "count", least });

export const FIELDS: readonly Field[] = [
  { name: "subject", kind: label, peer: "must" },
  { name: "arm", kind: label, peer: "must" },
  { name: "model", kind: text, peer: "may", only: "generate" },
  { name: "task", kind: label },
  { name: "batch", kind: count(1), peer: "must" },
  { name: "context_tokens", kind: count(1), peer: "must", only: "attention" },
  { name: "query_heads", kind: count(1), peer: "must", only: "attention" },
  { name: "kv_heads", kind: count(1), peer: "must", only: "attention" },
  { name: "head_dim", kind: count(1), peer: "must", only: "attention" },
  { name: "prompt_tokens", kind: count(1), peer: "may", only: "generate" },
  { name: "decode_tokens", kind: count(1), peer: "may", only: "generate" },
  { name: "depth_tokens", kind: count(0), peer: "must", only: "generate" },
  { name: "dtype", kind: label, peer: "may" },
  { name: "page_size", kind: count(1), peer: "may" },
  { name: "budget_tokens", kind: count(1), peer: "may" },
  { name: "scorer", kind: label, peer: "may" },
  { name: "samples", kind: count(1), peer: "may" },
  { name: "median_us", kind: number, peer: "may" },
  { name: "low_us", kind: number, peer: "may" },
  { name: "high_us", kind: number, peer: "may" },
  { name: "tokens_per_s", kind: number, peer: "may", only: "generate" },
  { name: "bytes", kind: number, peer: "may" },
  { name: "gb_per_s", kind: number },
  { name: "of_peak", kind: number },
  { name: "peak_gb_per_s", kind: number },
  { name: "of_dense", kind: number },
  { name: "rotated_bytes", kind: number },
  { name: "recall", kind: number },
  { name: "mass_kept", kind: number },
  { name: "oracle_mass", kind: number },
  { name: "pages_read", kind: number },
  { name: "pages_dense", kind: number },
  { name: "queued_us", kind: number },
  { name: "trials", kind: count(1) },
  { name: "right", kind: count(0) },
  { name: "accuracy", kind: number },
  { name: "accuracy_low", kind: number },
  { name: "accuracy_high", kind: number },
  { name: "by_depth", kind: label },
  { name: "score", kind: number },
  { name: "score_change", kind: number },
  { name: "score_change_low", kind: number },
  { name: "score_change_high", kind: number },
  { name: "loss", kind: number },
  { name: "loss_change", kind: number },
  { name: "loss_change_low", kind: number },
  { name: "loss_change_high", kind: number },
  { name: "kl", kind: number },
  { name: "kl_p99", kind: number },
  { name: "top1_agreement", kind: number },
  { name: "alarm", kind: text },
  { name: "program", kind: text, peer: "may" },
  { name: "device", kind: text, peer: "may" },
  { name: "command", kind: text, peer: "may" },
];
