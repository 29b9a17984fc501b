/** Decode steps of one arm from a filled cache on, with a batch and a recording of their own. */
import { DecodeBatch } from "../engine/decode_batch.ts";
import { PagesiftError } from "../engine/errors.ts";
import type { KvPool } from "../engine/pages/kv_pool.ts";
import { countSparseLayers } from "../engine/pages/page_policy.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import { StepRunner } from "../engine/step_runner.ts";
import type { Counters } from "../ffi/structs.ts";
import { checkSelections } from "./activity.ts";
import type { BenchModel } from "./bench_model.ts";
import { type DecodeArm, WARMUP_STEPS } from "./generate_plan.ts";

/** Times in seconds a step. */
export interface TurnTimes {
  /** Taking in the tokens, the step, and reading the most likely next ones. */
  step: number;
  /** Recorded steps, many starts without a read between; where the device records. */
  queued: number | undefined;
  /** Of the steps of `step`. */
  counted: Counters;
}

export class DecodeTurn {
  readonly #batch: DecodeBatch;
  readonly #runner: StepRunner;
  #ids: number[];

  constructor(
    readonly bench: BenchModel,
    readonly pool: KvPool,
    readonly sequences: readonly Sequence[],
    readonly arm: DecodeArm,
  ) {
    this.#batch = new DecodeBatch(bench.device, pool, arm.policy);
    this.#runner = new StepRunner(bench.model, pool, arm.policy);
    this.#ids = sequences.map((_, row) => (row * 7919 + 1) % bench.config.vocabSize);
  }

  /** @throws {Error} when the native counters deny what the arm claims */
  async run(steps: number, breathe: () => Promise<void>): Promise<TurnTimes> {
    try {
      for (let count = 0; count < WARMUP_STEPS; count++) this.#step();
      this.pool.cache.resetCounters();
      const step = await timed(steps, () => this.#step(), breathe);
      const counted = this.pool.cache.counters();
      checkSelections(this.arm.name, steps * countSparseLayers(this.arm.policy), counted);
      return { step, queued: this.#timeQueued(steps), counted };
    } finally {
      this.#runner.close();
      this.#batch.close();
    }
  }

  #step(): void {
    const { best } = this.#runner.run(this.#batch.advance(this.sequences, this.#ids));
    this.#ids = Array.from(best.readInts());
    if (this.#ids.some((id) => id < 0)) {
      throw new PagesiftError("numeric", "A decode step gave logits that are not finite; check the weights");
    }
  }

  /** The latest step again and again, with one read at the end. */
  #timeQueued(steps: number): number | undefined {
    if (!this.#runner.replay()) return undefined;
    const probe = this.bench.device.createBuffer(4);
    try {
      probe.read(new Uint8Array(4));
      const started = performance.now();
      for (let count = 0; count < steps; count++) this.#runner.replay();
      probe.read(new Uint8Array(4));
      return (performance.now() - started) / 1000 / steps;
    } finally {
      probe.close();
    }
  }
}

/** Seconds a step; the turns that the event loop takes between steps do not count. */
async function timed(steps: number, work: () => void, breathe: () => Promise<void>): Promise<number> {
  let seconds = 0;
  for (let count = 0; count < steps; count++) {
    const started = performance.now();
    work();
    seconds += (performance.now() - started) / 1000;
    await breathe();
  }
  return seconds / steps;
}
