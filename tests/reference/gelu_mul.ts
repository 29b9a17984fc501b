import type { Numbers } from "./numbers.ts";

/** gate / 2 * (1 + tanh(sqrt(2 / pi) * (gate + 0.044715 * gate^3))) * up. */
export function geluMul(gate: Numbers, up: Numbers): Float64Array {
  return Float64Array.from(gate, (x, i) => {
    const u = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
    // (1 + tanh(u)) / 2, without the cancellation that it has below 0.
    return x / (1 + Math.exp(-2 * u)) * up[i]!;
  });
}
