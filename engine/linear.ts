import type { Device } from "../ffi/device.ts";
import { fusedMatmul, type ProductJoins } from "../ffi/ops.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { Weights } from "./weights.ts";

/**
 * out = x W^T + b, for the weight and, where there is one, the bias of `name`. x `[T, K]`, out `[T, N]`. A weight whose rows have several
 * formats is several tensors, each with a product of its own.
 *
 * @param joins what surrounds the product; only a weight of one tensor ({@link isWhole}) can end in a gated activation
 */
export function linear(
  device: Device,
  weights: Weights,
  name: string,
  x: Tensor,
  out: Tensor,
  joins: ProductJoins = {},
): void {
  const stack = weights.stack(`${name}.weight`);
  const bias = weights.find(`${name}.bias`);
  const [whole] = stack;
  if (whole && stack.length === 1) return fusedMatmul(device, x, whole, bias, out, joins);
  const { norm, ending } = joins;
  let row = 0;
  for (const weight of stack) {
    const rows = weight.shape[0] ?? 0;
    const own = ending && { kind: ending.kind, scratch: ending.scratch.columns(row, rows) };
    fusedMatmul(device, x, weight, bias?.flat(row, rows), out.columns(row, rows), { norm, ending: own });
    row += rows;
  }
}

/** Whether all rows of the weight of `name` have one format. */
export function isWhole(weights: Weights, name: string): boolean {
  return weights.stack(`${name}.weight`).length === 1;
}
