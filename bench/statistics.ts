/** Summaries of many measurements. */
import type { Timing } from "./row.ts";

/** The quantile of sorted values for this share, interpolated between neighbours. */
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

/** The timing of a row from the seconds of every repetition. */
export function timingOf(seconds: readonly number[]): Timing & { samples: number } {
  const us = seconds.map((value) => value * 1e6);
  return {
    samples: us.length,
    median_us: median(us),
    low_us: percentile(us, 0.1),
    high_us: percentile(us, 0.9),
  };
}
