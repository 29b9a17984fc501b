import type { Numbers } from "./numbers.ts";

/** x * factor. */
export function scale(x: Numbers, factor: number): Float64Array {
  return Float64Array.from(x, (value) => value * factor);
}
