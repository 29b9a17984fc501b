import type { Tensor } from "../ffi/tensor.ts";
import type { DecodeStep } from "./decode_batch.ts";

/** Looks on while decode steps run. It may start reads and operations of its own, and must not change what it is shown. */
export interface StepObserver {
  /**
   * Called when the attention of a layer has run. Where the layer selects pages, `step.selecting` holds those that it read.
   *
   * @param q f32 `[B, Hq, d]`, normed and rotated, as attention took them
   */
  afterAttention(layer: number, q: Tensor, step: DecodeStep): void;
}
