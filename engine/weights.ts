import type { Device } from "../ffi/device.ts";
import { DTYPE_BYTES } from "../ffi/structs.ts";
import { Tensor } from "../ffi/tensor.ts";
import { readTensorInPieces } from "./folder/safetensors.ts";
import type { PlannedTensor, WeightPlan } from "./folder/weight_plan.ts";

/** Tensors start at multiples of this, so that vector loads stay aligned. */
const ALIGNMENT_BYTES = 256;
const PIECE_BYTES = 4 << 20;
/** After this many bytes the event loop gets a turn, so that Ctrl-C works while a model loads. */
const BREATH_BYTES = 64 << 20;

function tensorBytes(tensor: PlannedTensor): number {
  return tensor.shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[tensor.dtype];
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/** Bytes of device memory for the planned tensors. */
export function weightBytes(plan: WeightPlan): number {
  return [...plan.tensors.values()].reduce((sum, tensor) => sum + aligned(tensorBytes(tensor)), 0);
}

/** The weights of a model, in one buffer of the device. */
export class Weights {
  readonly #tensors: ReadonlyMap<string, Tensor>;

  private constructor(tensors: ReadonlyMap<string, Tensor>, readonly bytes: number) {
    this.#tensors = tensors;
  }

  /**
   * Copies the planned tensors to the device in pieces of a few MiB: no second copy of the weights ever exists.
   *
   * @throws {PagesiftError} of kind "model" when a file got shorter, the signal's reason when aborted
   */
  static async load(device: Device, plan: WeightPlan, signal?: AbortSignal): Promise<Weights> {
    const weights = Weights.#place(device, plan);
    let sinceBreath = 0;
    for (const planned of plan.tensors.values()) {
      signal?.throwIfAborted();
      const { buffer, offsetBytes } = weights.get(planned.name);
      let target = offsetBytes;
      for (const part of planned.parts) {
        const start = target;
        readTensorInPieces(part.file, part, PIECE_BYTES, (piece, at) => buffer.write(piece, start + at));
        target += part.bytes;
      }
      sinceBreath += target - offsetBytes;
      if (sinceBreath < BREATH_BYTES) continue;
      sinceBreath = 0;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    return weights;
  }

  /** Weights without a file, to measure a model shape: `fill` receives every planned tensor with its zeroed device tensor. */
  static fill(device: Device, plan: WeightPlan, fill: (planned: PlannedTensor, target: Tensor) => void): Weights {
    const weights = Weights.#place(device, plan);
    for (const planned of plan.tensors.values()) fill(planned, weights.get(planned.name));
    return weights;
  }

  /** Zeroed device tensors for the planned tensors. */
  static #place(device: Device, plan: WeightPlan): Weights {
    const bytes = weightBytes(plan);
    const buffer = device.createBuffer(bytes);
    const tensors = new Map<string, Tensor>();
    let offset = 0;
    for (const planned of plan.tensors.values()) {
      tensors.set(planned.name, new Tensor(buffer, planned.dtype, planned.shape, offset));
      offset += aligned(tensorBytes(planned));
    }
    return new Weights(tensors, bytes);
  }

  /** A tensor that the plan is known to contain. */
  get(name: string): Tensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`No weight tensor "${name}" was planned`);
    return tensor;
  }

  /** A tensor that some models lack (a bias, a norm). */
  find(name: string): Tensor | undefined {
    return this.#tensors.get(name);
  }
}
