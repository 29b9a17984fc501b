import { DecodeBatch, type DecodeStep } from "./decode_batch.ts";
import type { DecodeHooks, Model } from "./model.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { densePolicy, type PagePolicy } from "./pages/page_policy.ts";
import { selectsPages, type StepShape, stepShape } from "./pages/selection_cost.ts";
import type { Sequence } from "./pages/sequence.ts";
import { type StepResult, StepRunner } from "./step_runner.ts";

/** Decode steps under one page policy: the memory that describes them, and what was recorded of them. */
export class Decoder implements Disposable {
  readonly batch: DecodeBatch;
  readonly #runner: StepRunner;
  #denseRunner: StepRunner | undefined;
  #aheadRunner: StepRunner | undefined;

  constructor(readonly model: Model, readonly pool: KvPool, readonly policy: PagePolicy) {
    const shape = stepShapeOf(model, pool, policy);
    this.batch = new DecodeBatch(model.device, pool, policy, (lengths) => selectsPages(shape, policy, lengths));
    this.#runner = new StepRunner(model, pool, policy);
  }

  /** Appends one token to each sequence and computes what follows. */
  run(sequences: readonly Sequence[], ids: readonly number[], hooks?: DecodeHooks): { step: DecodeStep } & StepResult {
    const step = this.batch.advance(sequences, ids);
    return { step, ...this.compute(step, hooks) };
  }

  /** Computes a step of {@link batch}. It may be computed several times: each writes the keys and values of its tokens to the same slots. */
  compute(step: DecodeStep, hooks?: DecodeHooks): StepResult {
    return this.#runner.run(step, hooks);
  }

  /** Computes a step of {@link batch} as {@link compute} does, but no layer selects pages. */
  computeDense(step: DecodeStep): StepResult {
    this.#denseRunner ??= new StepRunner(this.model, this.pool, densePolicy(this.policy));
    return this.#denseRunner.run(step);
  }

  /** Computes a step of {@link batch} whose most likely tokens become its `ids`, those of the next step. */
  computeAhead(step: DecodeStep): StepResult {
    this.#aheadRunner ??= new StepRunner(this.model, this.pool, this.policy, true);
    return this.#aheadRunner.run(step);
  }

  /** Starts the latest step again if it was recorded; see {@link StepRunner.replay}. */
  replay(): boolean {
    return (this.#aheadRunner ?? this.#runner).replay();
  }

  [Symbol.dispose](): void {
    this.#denseRunner?.[Symbol.dispose]();
    this.#aheadRunner?.[Symbol.dispose]();
    this.#runner[Symbol.dispose]();
    this.batch[Symbol.dispose]();
  }
}

/** What the length of a model's steps depends on, in a pool and under a policy. */
export function stepShapeOf({ device, config, weights }: Model, pool: KvPool, policy: PagePolicy): StepShape {
  return stepShape(device.backend, config, weights.stepBytes(config), pool.shape, policy);
}
