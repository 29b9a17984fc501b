/** 95 % intervals of measured numbers, and tests of paired results. */
import { mean } from "./statistics.ts";

/** The two ends of an interval. */
export interface Interval {
  low: number;
  high: number;
}

/** Two-sided quantile of the normal distribution. */
const Z_95 = 1.959964;

/**
 * Wilson's score interval of a proportion; it stays within 0 and 1 and does not collapse if all or none are
 * correct.
 */
export function wilson(right: number, trials: number): Interval {
  if (trials === 0) return { low: 0, high: 1 };
  const share = right / trials;
  const z2 = Z_95 ** 2;
  const centre = (share + z2 / (2 * trials)) / (1 + z2 / trials);
  const half = Z_95 / (1 + z2 / trials) * Math.sqrt(share * (1 - share) / trials + z2 / (4 * trials ** 2));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/**
 * Interval of the mean of paired differences. Neighbours in a text are not independent, so `block` values in a row count as one
 * (their mean); then Student's t over the blocks. With fewer than two blocks the interval is unbounded.
 */
export function pairedInterval(differences: readonly number[], block: number): Interval {
  const blocks: number[] = [];
  for (let first = 0; first + block <= differences.length; first += block) {
    blocks.push(mean(differences.slice(first, first + block)));
  }
  if (blocks.length < 2) return { low: -Infinity, high: Infinity };
  const centre = mean(blocks);
  const variance = blocks.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (blocks.length - 1);
  const half = studentT95(blocks.length - 1) * Math.sqrt(variance / blocks.length);
  return { low: centre - half, high: centre + half };
}

/**
 * Interval of the mean of paired differences between scores from 0 to 1, after Agresti and Min (2005): two pairs are added, one
 * of which differs. So it does not collapse if few pairs differ.
 */
export function pairedScoreInterval(differences: readonly number[]): Interval {
  const pairs = differences.length + 2;
  const centre = differences.reduce((sum, value) => sum + value, 0) / pairs;
  const squares = differences.reduce((sum, value) => sum + value ** 2, 1) / pairs;
  const half = Z_95 * Math.sqrt((squares - centre ** 2) / pairs);
  return { low: Math.max(-1, centre - half), high: Math.min(1, centre + half) };
}

/** The 97.5 % quantile of Student's t, by the Cornish-Fisher expansion; exact values where that is inaccurate. */
export function studentT95(degrees: number): number {
  const small = [12.706, 4.303, 3.182, 2.776, 2.571][degrees - 1];
  if (small !== undefined) return small;
  const z = Z_95;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
  ];
  return terms.reduce((sum, term, index) => sum + term / degrees ** (index + 1), z);
}

/**
 * McNemar's exact test, one-sided: the probability that at least `gained` of the differing pairs go one way if both ways are
 * equally likely. `lost` is the number of pairs that go the other way.
 */
export function signTest(gained: number, lost: number): number {
  const pairs = gained + lost;
  let [term, sum] = [0.5 ** pairs, 0];
  for (let count = 0; count <= pairs; count++) {
    if (count >= gained) sum += term;
    term *= (pairs - count) / (count + 1);
  }
  return Math.min(1, sum);
}
