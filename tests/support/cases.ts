/** Seeded inputs of the shapes that models have: keys with page structure, queries near some of them, shuffled page tables. */
import { Random } from "../../engine/sample/random.ts";
import type { HeadShape } from "../reference/numbers.ts";

/** Normal numbers of mean 0. */
export function normals(random: Random, count: number, deviation = 1): Float32Array<ArrayBuffer> {
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - random.nextFloat()));
    numbers[i] = deviation * radius * Math.cos(2 * Math.PI * random.nextFloat());
  }
  return numbers;
}

/** Keys `[n, Hk, d]` that drift, so that neighbours resemble each other, as in `unique_reference.py`. */
export function driftingKeys(random: Random, tokens: number, heads: HeadShape): Float32Array<ArrayBuffer> {
  const width = heads.numKvHeads * heads.headDim;
  const steps = normals(random, tokens * width, 0.15);
  for (let i = width; i < steps.length; i++) steps[i]! += steps[i - width]!;
  return normals(random, tokens * width, 0.7).map((noise, i) => noise + steps[i]!);
}

/** A query `[Hq, d]`, each head of which leans towards one of the keys of its KV head. */
export function queryNear(random: Random, keys: Float32Array, heads: HeadShape): Float32Array<ArrayBuffer> {
  const { numQueryHeads, numKvHeads, headDim } = heads;
  const tokens = keys.length / (numKvHeads * headDim);
  const near = Array.from({ length: numQueryHeads }, (_, h) => {
    const head = Math.floor(h / (numQueryHeads / numKvHeads));
    return (integerBelow(random, tokens) * numKvHeads + head) * headDim;
  });
  return normals(random, numQueryHeads * headDim, 0.5)
    .map((noise, i) => noise + 0.35 * keys[near[Math.floor(i / headDim)]! + i % headDim]!);
}

export function integerBelow(random: Random, limit: number): number {
  return Math.floor(random.nextFloat() * limit);
}

/** The numbers 0 to count - 1 in another order. */
export function shuffled(random: Random, count: number): number[] {
  const numbers = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = integerBelow(random, i + 1);
    [numbers[i], numbers[j]] = [numbers[j]!, numbers[i]!];
  }
  return numbers;
}

/** The arrays of several sequences, one after the other. */
export function joined(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const lengths = parts.map((part) => part.length);
  const out = new Float32Array(lengths.reduce((a, b) => a + b, 0));
  parts.forEach((part, i) => out.set(part, lengths.slice(0, i).reduce((a, b) => a + b, 0)));
  return out;
}
