import type { Device } from "../../ffi/device.ts";
import { sample } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import type { Sampler } from "./sampler.ts";

/** Draws the tokens of a step where the logits lie, for samplers that need nothing but the logits. */
export class NativeSampler {
  readonly #settings: Tensor;
  readonly #draws: Tensor;
  readonly #ids: Tensor;

  constructor(readonly device: Device, maxRows: number) {
    this.#settings = device.createTensor("f32", [maxRows, 4]);
    this.#draws = device.createTensor("f32", [maxRows]);
    this.#ids = device.createTensor("i32", [maxRows]);
  }

  /**
   * A token for each row of logits `[B, V]`, drawn by the row's sampler; -1 for a row without a finite best one. Of a row whose sampler
   * has no device settings it is the most likely token, and no number of the sampler's is used up.
   */
  sample(logits: Tensor, samplers: readonly Sampler[]): number[] {
    const count = samplers.length;
    const best = [1, 1, 0, 1];
    this.#settings.write(Float32Array.from(samplers.flatMap(({ deviceSettings }) => deviceSettings ?? best)));
    this.#draws.write(Float32Array.from(samplers, (one) => one.deviceSettings ? one.nextDraw() : 0));
    const ids = this.#ids.rows(0, count);
    sample(this.device, logits, this.#settings.rows(0, count), this.#draws.rows(0, count), ids);
    return Array.from(ids.readInts());
  }

  close(): void {
    for (const tensor of [this.#settings, this.#draws, this.#ids]) tensor.buffer.close();
  }
}
