/** Numbers that stand for many measurements. */
import type { Timing } from "./row.ts";

/** The value below which this share of the sorted values lies, between neighbours where it falls between. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? NaN;
  const high = sorted[Math.ceil(at)] ?? NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Seconds of every repetition as a row reports them. */
export function timingOf(seconds: readonly number[]): Timing & { samples: number } {
  const us = seconds.map((value) => value * 1e6);
  return {
    samples: us.length,
    median_us: median(us),
    low_us: percentile(us, 0.1),
    high_us: percentile(us, 0.9),
  };
}
