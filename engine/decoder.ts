import { DecodeBatch, type DecodeStep } from "./decode_batch.ts";
import type { DecodeHooks, Model } from "./model.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import type { Sequence } from "./pages/sequence.ts";
import { type StepResult, StepRunner } from "./step_runner.ts";

/** Decode steps under one page policy: the memory that describes them, and what was recorded of them. */
export class Decoder implements Disposable {
  readonly batch: DecodeBatch;
  readonly #runner: StepRunner;

  constructor(model: Model, pool: KvPool, policy: PagePolicy) {
    this.batch = new DecodeBatch(model.device, pool, policy);
    this.#runner = new StepRunner(model, pool, policy);
  }

  /** Appends one token to each sequence and computes what follows. */
  run(sequences: readonly Sequence[], ids: readonly number[], hooks?: DecodeHooks): { step: DecodeStep } & StepResult {
    const step = this.batch.advance(sequences, ids);
    return { step, ...this.#runner.run(step, hooks) };
  }

  /** Starts the latest step again if it was recorded; see {@link StepRunner.replay}. */
  replay(): boolean {
    return this.#runner.replay();
  }

  [Symbol.dispose](): void {
    this.#runner[Symbol.dispose]();
    this.batch[Symbol.dispose]();
  }
}
