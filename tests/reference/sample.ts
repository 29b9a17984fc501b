import type { Numbers } from "./numbers.ts";

export interface SampleSettings {
  temperature: number;
  topP: number;
  minP: number;
  /** 0 for all. */
  topK: number;
}

/** A token that may be drawn. */
export interface Candidate {
  id: number;
  /** Whole parts of 2^-40. */
  weight: bigint;
}

/** exp(x) in whole parts of 2^-40, rounded down. */
function fixed(x: number): bigint {
  return BigInt(Math.floor(Math.exp(x) * 2 ** 40));
}

/** fraction * total as an exact ratio, of a fraction that is a multiple of 2^-53. */
function share(fraction: number, total: bigint): { scaled: bigint; unit: bigint } {
  const high = Math.floor(fraction * 2 ** 53);
  return { scaled: BigInt(high) * total, unit: 2n ** 53n };
}

function sumOf(weights: readonly bigint[]): bigint {
  return weights.reduce((sum, weight) => sum + weight, 0n);
}

/** The best ranked ids whose masses are the fewest that reach top-p of their sum. */
function keepTopP(logits: Numbers, ranked: readonly number[], max: number, topP: number): readonly number[] {
  const masses = ranked.map((id) => fixed(logits[id]! - max));
  const { scaled, unit } = share(topP, sumOf(masses));
  let mass = 0n;
  const count = masses.findIndex((one) => (mass += one) * unit >= scaled);
  return ranked.slice(0, count + 1);
}

/** What is left of a row by the filters, in the order of the draw; nothing for a row that cannot be drawn from. */
export function candidates(logits: Numbers, settings: SampleSettings): Candidate[] {
  const [temperature, topP, minP] = [settings.temperature, settings.topP, settings.minP].map(Math.fround) as [
    number,
    number,
    number,
  ];
  const ids = Array.from({ length: logits.length }, (_, id) => id);
  const max = ids.reduce((best, id) => Math.max(best, logits[id]!), -Infinity); // NaN when one is
  if (!Number.isFinite(max)) return [];
  const finite = ids.filter((id) => logits[id]! > -Infinity);
  const weigh = (kept: readonly number[]): Candidate[] =>
    kept.map((id) => ({ id, weight: fixed(Math.fround(logits[id]! - max) / temperature) }));
  if (settings.topK === 0 && topP === 1 && minP === 0) return weigh(finite);
  const ranked: readonly number[] = finite.sort((a, b) => logits[b]! - logits[a]! || a - b);
  const best = ranked.slice(0, settings.topK || ranked.length);
  const likely = topP < 1 ? keepTopP(logits, best, max, topP) : best;
  return weigh(likely.filter((id, rank) => rank === 0 || logits[id]! >= max + Math.log(minP)));
}

/** The token that `draw` in [0, 1) takes, or -1. */
export function sample(logits: Numbers, settings: SampleSettings, draw: number): number {
  const kept = candidates(logits, settings);
  const { scaled, unit } = share(Math.fround(draw), sumOf(kept.map(({ weight }) => weight)));
  let sum = 0n;
  return kept.find(({ weight }) => (sum += weight) * unit > scaled)?.id ?? -1;
}
