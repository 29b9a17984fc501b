import type { Device } from "../ffi/device.ts";
import { add, embedding } from "../ffi/ops.ts";
import { Tensor } from "../ffi/tensor.ts";
import type { ModelConfig } from "./folder/config.ts";
import type { TensorNeed } from "./owned_tensors.ts";
import type { Weights } from "./weights.ts";

const LAYER_NORMS = ["attention_norm", "q_norm", "k_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm"];

/** Norms whose weights are stored less 1, without ".weight"; a model may lack some of them. */
function summedNorms({ normOffset, numLayers }: ModelConfig): string[] {
  if (normOffset === 0) return [];
  const layers = Array.from(
    { length: numLayers },
    (_, layer) => LAYER_NORMS.map((name) => `layers.${layer}.${name}`),
  );
  return [...layers.flat(), "norm"];
}

/** The sums of {@link NormWeights} for planned weights. */
export function normNeeds(config: ModelConfig, planned: ReadonlyMap<string, TensorNeed>): Record<string, TensorNeed> {
  const stored = summedNorms(config).flatMap((name) => {
    const need = planned.get(`${name}.weight`);
    return need ? [[name, { dtype: "f32", shape: need.shape }] as const] : [];
  });
  return Object.fromEntries(stored);
}

/**
 * The weights of norms as the forward pass multiplies by them: as they are stored, or 1 more in f32. Sums are made once, beside the
 * stored weights, which are small.
 */
export class NormWeights {
  readonly #sums = new Map<string, Tensor>();

  constructor(device: Device, readonly weights: Weights, config: ModelConfig) {
    for (const name of summedNorms(config)) {
      const stored = weights.find(`${name}.weight`);
      if (stored) this.#sums.set(name, plusOne(device, stored));
    }
  }

  /** `[n]`; `name` is that of the tensor without ".weight". */
  get(name: string): Tensor {
    return this.#sums.get(name) ?? this.weights.get(`${name}.weight`);
  }
}

/** 1 + the numbers `[n]`, in f32. */
function plusOne(device: Device, { buffer, dtype, shape: [width = 0], offsetBytes }: Tensor): Tensor {
  const sum = device.createTensor("f32", [1, width]);
  const row = device.createTensor("i32", [1]);
  const ones = device.upload(new Float32Array(width).fill(1), [1, width]);
  // The look-up of row 0 in a table of one row widens it.
  embedding(device, row, new Tensor(buffer, dtype, [1, width], offsetBytes), sum);
  add(device, sum, ones);
  for (const used of [row, ones]) used.buffer.close();
  return sum.flat(0, width);
}
