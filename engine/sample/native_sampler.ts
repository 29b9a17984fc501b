import type { Device } from "../../ffi/device.ts";
import { sample } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { type TensorNeed, tensorsOwnedBy } from "../owned_tensors.ts";
import type { Sampler } from "./sampler.ts";

/** The tensors of {@link NativeSampler}. */
export function samplerNeeds(maxRows: number): Record<"settings" | "draws" | "ids", TensorNeed> {
  return {
    settings: { dtype: "f32", shape: [maxRows, 4] },
    draws: { dtype: "f32", shape: [maxRows] },
    ids: { dtype: "i32", shape: [maxRows] },
  };
}

/** Draws the tokens of a step on the device, for samplers that require nothing but the logits. */
export class NativeSampler implements Disposable {
  readonly #settings: Tensor;
  readonly #draws: Tensor;
  readonly #ids: Tensor;
  readonly #owned: DisposableStack;

  constructor(readonly device: Device, maxRows: number) {
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, device);
    const { settings, draws, ids } = samplerNeeds(maxRows);
    this.#settings = createTensor(settings.dtype, settings.shape);
    this.#draws = createTensor(draws.dtype, draws.shape);
    this.#ids = createTensor(ids.dtype, ids.shape);
    this.#owned = owned.move();
  }

  /**
   * A token for each row of logits `[B, V]`, drawn by the row's sampler; -1 for a row without a finite best one. Of a row whose sampler
   * has no device settings it is the most likely token, and no number of the sampler's is used up.
   */
  sample(logits: Tensor, samplers: readonly Sampler[]): number[] {
    const ids = this.#ids.rows(0, samplers.length);
    this.start(logits, samplers, ids);
    return Array.from(ids.readInts());
  }

  /** The same without waiting: the tokens go to `ids`, i32 `[B]`. */
  start(logits: Tensor, samplers: readonly Sampler[], ids: Tensor): void {
    const count = samplers.length;
    const best = [1, 1, 0, 1];
    this.#settings.write(Float32Array.from(samplers.flatMap(({ deviceSettings }) => deviceSettings ?? best)));
    this.#draws.write(Float32Array.from(samplers, (one) => one.deviceSettings ? one.nextDraw() : 0));
    sample(this.device, logits, this.#settings.rows(0, count), this.#draws.rows(0, count), ids);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
