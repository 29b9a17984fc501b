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

interface Recorded {
  graph: Graph;
  result: StepResult;
}

/** Kinds of steps that a runner knows at once. As requests come and go, few sizes of a batch take turns. */
const MAX_KINDS = 4;

/**
 * Runs decode steps. Where the device records work, the second step of a kind is recorded, and from then on its kind is replayed
 * with one call: positions, lengths and tables are in device memory. A step with hooks is neither recorded nor replayed.
 */
export class StepRunner implements Disposable {
  /** The latest kinds of steps, the last one last. A kind is not recorded before its second step. */
  readonly #kinds = new Map<DecodeStep, Recorded | undefined>();

  /** @param feedsBack whether the most likely tokens become the `ids` of the step, so that the next one can start without the host */
  constructor(readonly model: Model, readonly pool: KvPool, readonly policy: PagePolicy, readonly feedsBack = false) {}

  run(step: DecodeStep, hooks?: DecodeHooks): StepResult {
    if (hooks) return this.#start(step, hooks);
    if (!this.#kinds.has(step)) {
      // The first step of its kind runs unrecorded: it allocates everything that the recording of the next one requires.
      this.#keep(step, undefined);
      return this.#start(step);
    }
    const recorded = this.#kinds.get(step) ?? (this.model.canRecord ? this.#record(step) : undefined);
    this.#keep(step, recorded);
    if (!recorded) return this.#start(step);
    recorded.graph.launch();
    return recorded.result;
  }

  /** Starts the latest step again for measuring; it writes the same results. False if it was not recorded. */
  replay(): boolean {
    const recorded = [...this.#kinds.values()].at(-1);
    recorded?.graph.launch();
    return recorded !== undefined;
  }

  #start(step: DecodeStep, hooks: DecodeHooks = {}): StepResult {
    const { model, pool, policy } = this;
    const logits = model.decode(pool, policy, step, hooks);
    return { logits, best: model.best(logits, this.feedsBack ? step.ids : undefined) };
  }

  #record(step: DecodeStep): Recorded {
    let result: StepResult | undefined;
    const graph = this.model.device.record(() => {
      result = this.#start(step);
    });
    if (!result) throw new Error("A recorded step gave nothing");
    return { graph, result };
  }

  /** Makes a kind the latest, and forgets the one that has not run for longest if there are too many. */
  #keep(step: DecodeStep, recorded: Recorded | undefined): void {
    this.#kinds.delete(step);
    this.#kinds.set(step, recorded);
    const [oldest] = this.#kinds;
    if (this.#kinds.size <= MAX_KINDS || !oldest) return;
    oldest[1]?.graph.close();
    this.#kinds.delete(oldest[0]);
  }

  [Symbol.dispose](): void {
    for (const recorded of this.#kinds.values()) recorded?.graph.close();
    this.#kinds.clear();
  }
}
