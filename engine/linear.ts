import type { Device } from "../ffi/device.ts";
import { matmul } from "../ffi/ops.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { Weights } from "./weights.ts";

/**
 * out = x W^T + b, for the weight and, where there is one, the bias of `name`. x `[T, K]`, out `[T, N]`. A weight whose rows have several
 * formats is several tensors, each with a product of its own.
 */
export function linear(device: Device, weights: Weights, name: string, x: Tensor, out: Tensor): void {
  const stack = weights.stack(`${name}.weight`);
  const bias = weights.find(`${name}.bias`);
  const [whole] = stack;
  if (whole && stack.length === 1) return matmul(device, x, whole, bias, out);
  let row = 0;
  for (const weight of stack) {
    const rows = weight.shape[0] ?? 0;
    matmul(device, x, weight, bias?.flat(row, rows), out.columns(row, rows));
    row += rows;
  }
}
