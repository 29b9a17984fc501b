import type { Graph } from "../ffi/device.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { DecodeStep } from "./decode_batch.ts";
import type { DecodeHooks, Model } from "./model.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";

/** Results of a decode step: logits f32 `[B, V]`, and the most likely tokens i32 `[B]`. The next step overwrites both. */
export interface StepResult {
  logits: Tensor;
  best: Tensor;
}

/**
 * Runs decode steps. Where the device records work, a step that looks like the one before it is recorded and from then on replayed
 * with one call: positions, lengths and tables are in device memory. A step with hooks is neither recorded nor replayed.
 */
export class StepRunner implements Disposable {
  #last: DecodeStep | undefined;
  #recorded: { graph: Graph; result: StepResult } | undefined;

  /** @param feedsBack whether the most likely tokens become the `ids` of the step, so that the next one can start without the host */
  constructor(readonly model: Model, readonly pool: KvPool, readonly policy: PagePolicy, readonly feedsBack = false) {}

  run(step: DecodeStep, hooks?: DecodeHooks): StepResult {
    if (hooks) return this.#start(step, hooks);
    if (step !== this.#last) {
      // The first step of its kind runs unrecorded: it allocates everything that the recording of the next one requires.
      this.#forget();
      this.#last = step;
      return this.#start(step);
    }
    this.#recorded ??= this.model.canRecord ? this.#record(step) : undefined;
    if (!this.#recorded) return this.#start(step);
    this.#recorded.graph.launch();
    return this.#recorded.result;
  }

  /** Starts the latest step again for measuring; it writes the same results. False if it was not recorded. */
  replay(): boolean {
    this.#recorded?.graph.launch();
    return this.#recorded !== undefined;
  }

  #start(step: DecodeStep, hooks: DecodeHooks = {}): StepResult {
    const { model, pool, policy } = this;
    const logits = model.decode(pool, policy, step, hooks);
    return { logits, best: model.best(logits, this.feedsBack ? step.ids : undefined) };
  }

  #record(step: DecodeStep): { graph: Graph; result: StepResult } {
    let result: StepResult | undefined;
    const graph = this.model.device.record(() => {
      result = this.#start(step);
    });
    if (!result) throw new Error("A recorded step gave nothing");
    return { graph, result };
  }

  #forget(): void {
    this.#recorded?.graph.close();
    this.#recorded = undefined;
    this.#last = undefined;
  }

  [Symbol.dispose](): void {
    this.#forget();
  }
}
