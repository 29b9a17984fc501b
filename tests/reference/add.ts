import type { Numbers } from "./numbers.ts";

/** x + y. */
export function add(x: Numbers, y: Numbers): Float64Array {
  return Float64Array.from(x, (value, i) => value + y[i]!);
}
