import type { Numbers } from "./numbers.ts";

export interface RopeScale {
  scale: number;
  positionBeta: number;
  positionOrigin: number;
}

/** `[T, 2 * pairs]`: cosines, then sines, of every position. */
export function ropeTable(positions: Numbers, invFreq: Numbers, rope: RopeScale): Float64Array {
  const pairs = invFreq.length;
  const out = new Float64Array(positions.length * 2 * pairs);
  for (let t = 0; t < positions.length; t++) {
    const growth = rope.positionBeta === 0
      ? 1
      : 1 + rope.positionBeta * Math.log(1 + Math.floor(positions[t]! / rope.positionOrigin));
    for (let i = 0; i < pairs; i++) {
      const angle = positions[t]! * invFreq[i]!;
      out[t * 2 * pairs + i] = rope.scale * growth * Math.cos(angle);
      out[t * 2 * pairs + pairs + i] = rope.scale * growth * Math.sin(angle);
    }
  }
  return out;
}

/** Rotates number i of every head with number i + pairs; the rest stays. x `[T, heads, d]`, table `[T, 2 * pairs]`. */
export function rope(x: Numbers, table: Numbers, heads: number, headDim: number, pairs: number): Float64Array {
  const out = Float64Array.from(x);
  for (let row = 0; row < x.length / headDim; row++) {
    const t = Math.floor(row / heads);
    for (let i = 0; i < pairs; i++) {
      const cosine = table[t * 2 * pairs + i]!;
      const sine = table[t * 2 * pairs + pairs + i]!;
      const a = x[row * headDim + i]!;
      const b = x[row * headDim + pairs + i]!;
      out[row * headDim + i] = a * cosine - b * sine;
      out[row * headDim + pairs + i] = b * cosine + a * sine;
    }
  }
  return out;
}
