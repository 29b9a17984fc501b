import type { Device } from "../ffi/device.ts";
import { matmul, siluMul } from "../ffi/ops.ts";
import type { ActivationViews } from "./activations.ts";
import type { Weights } from "./weights.ts";

/** delta = down(silu(gate(normed)) * up(normed)): the block behind attention, for all tokens of a step. */
export function feedForward(device: Device, weights: Weights, name: string, views: ActivationViews): void {
  const { normed, gateUp, gate, up, product, delta } = views;
  matmul(device, normed, weights.get(`${name}.gate_up.weight`), weights.find(`${name}.gate_up.bias`), gateUp);
  siluMul(device, gate, up, product);
  matmul(device, product, weights.get(`${name}.down.weight`), weights.find(`${name}.down.bias`), delta);
}
