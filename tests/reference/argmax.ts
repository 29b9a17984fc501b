import type { Numbers } from "./numbers.ts";

/** The lowest index of the largest number of each row; -1 for a row with a NaN or an infinite maximum. */
export function argmax(x: Numbers, width: number): number[] {
  return Array.from({ length: x.length / width }, (_, row) => {
    const numbers = Array.from({ length: width }, (_, i) => x[row * width + i]!);
    const largest = numbers.reduce((best, value) => Math.max(best, value)); // NaN when one is
    return Number.isFinite(largest) ? numbers.indexOf(largest) : -1;
  });
}
