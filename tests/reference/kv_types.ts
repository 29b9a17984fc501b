/** What a cache keeps of keys and values in 8 bits, row by row. */
export type KvType = "q8" | "fp8";

/** The numbers of e4m3 from 0 up; number 2 i of the list has an even last bit. */
const E4M3 = Array.from({ length: 127 }, (_, code) => {
  const [exponent, fraction] = [code >> 3, code & 7];
  return exponent === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (exponent - 7);
});

const LARGEST: Readonly<Record<KvType, number>> = { q8: 127, fp8: 448 };
/** Rows below it are stored as zeros. */
const SMALLEST = 2 ** -100;

/** The nearest of ascending numbers, the one with the even index on ties. */
function nearest(numbers: readonly number[], x: number): number {
  const above = numbers.findIndex((number) => number >= x);
  if (above <= 0) return above === 0 ? numbers[0]! : numbers.at(-1)!;
  const [low, high] = [numbers[above - 1]!, numbers[above]!];
  if (x - low === high - x) return above % 2 === 0 ? high : low;
  return x - low < high - x ? low : high;
}

function roundInteger(x: number): number {
  const low = Math.floor(x);
  const rounded = x - low === 0.5 && low % 2 === 0 ? low : Math.round(x);
  return rounded + 0; // an integer has no -0
}

/** `numbers`, rows of `width`, after a round trip through the type. Every step is rounded to f32, as on the device. */
export function throughKvType(type: KvType, numbers: ArrayLike<number>, width: number): Float32Array<ArrayBuffer> {
  const out = Float32Array.from(numbers);
  for (let first = 0; first < out.length; first += width) {
    const row = out.subarray(first, first + width);
    const largest = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (!Number.isFinite(largest)) row.fill(NaN);
    else if (largest < SMALLEST) row.fill(0);
    else {
      const scale = Math.fround(largest / LARGEST[type]);
      row.forEach((x, i) => {
        const level = Math.fround(x / scale);
        const code = type === "q8" ? roundInteger(level) : Math.sign(level) * nearest(E4M3, Math.abs(level));
        row[i] = Math.fround(code * scale);
      });
    }
  }
  return out;
}
