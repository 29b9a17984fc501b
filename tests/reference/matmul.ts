import type { Numbers } from "./numbers.ts";

/** x `[T, inputs]` times the transpose of weight `[outputs, inputs]`, plus bias `[outputs]`. */
export function matmul(x: Numbers, weight: Numbers, bias: Numbers | undefined, inputs: number): Float64Array {
  const [tokens, outputs] = [x.length / inputs, weight.length / inputs];
  const [rows, weights] = [new Float64Array(x), new Float64Array(weight)];
  const out = new Float64Array(tokens * outputs);
  for (let t = 0; t < tokens; t++) {
    for (let n = 0; n < outputs; n++) {
      let sum = bias ? bias[n]! : 0;
      for (let k = 0; k < inputs; k++) sum += rows[t * inputs + k]! * weights[n * inputs + k]!;
      out[t * outputs + n] = sum;
    }
  }
  return out;
}
