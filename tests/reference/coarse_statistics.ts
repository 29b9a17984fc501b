import { rounded } from "../support/numbers.ts";

/** Shares of the largest variance above which a code is 1, 2 and 3. */
const CUTS = [0.0511, 0.2576, 0.69].map(Math.fround);

/** bf16, or NaN where that is not finite. */
function scaleOf(x: number): number {
  const scale = rounded("bf16", Float32Array.of(x))[0]!;
  return Number.isFinite(scale) ? scale : NaN;
}

function largest(numbers: ArrayLike<number>): number {
  return Array.from(numbers).reduce((most, x) => Number.isNaN(x) ? NaN : Math.max(most, Math.abs(x)), 0);
}

function toEven(x: number): number {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + Math.abs(floor % 2) : Math.round(x);
}

/** The coarse row of a page and KV head from its mean and variance as stored, `[d]` each: bytes, then the two scales. */
export function coarseRow(mean: Float32Array, variance: Float32Array): { bytes: number[]; scales: [number, number] } {
  const d = mean.length;
  const [meanScale, varianceScale] = [scaleOf(Math.fround(largest(mean) / 127)), scaleOf(largest(variance))];
  const share = (x: number, scale: number): number => scale > 0 ? Math.fround(x / scale) : 0;
  const bytes = Array.from(mean, (x) => Math.max(-127, Math.min(127, toEven(share(x, meanScale)))) & 255);
  const codes = Array.from(variance, (x) => CUTS.filter((cut) => share(x, varianceScale) > cut).length);
  const [wordBytes, piece] = [d <= 64 ? 4 : d <= 128 ? 8 : 16, d % 64 === 0 ? 16 : 8];
  const words = new Uint8Array(4 * wordBytes);
  codes.forEach((code, dim) => {
    const t = Math.floor(dim / piece) % 4;
    const n = Math.floor(dim / (4 * piece)) * piece + dim % piece;
    const bit = 16 * Math.floor(n / 8) + 4 * (n % 4) + 2 * (Math.floor(n / 4) % 2);
    words[t * wordBytes + Math.floor(bit / 8)]! |= code << bit % 8;
  });
  return { bytes: [...bytes, ...words], scales: [meanScale, varianceScale] };
}
