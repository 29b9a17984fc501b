import type { Numbers } from "./numbers.ts";

/** gate / (1 + e^-gate) * up. */
export function siluMul(gate: Numbers, up: Numbers): Float64Array {
  return Float64Array.from(gate, (x, i) => x / (1 + Math.exp(-x)) * up[i]!);
}
