import type { Decoder } from "./decoder.ts";
import type { Sequence } from "./pages/sequence.ts";
import type { NativeSampler } from "./sample/native_sampler.ts";
import type { Sampler } from "./sample/sampler.ts";

/** Draws the tokens of a step where they are not simply the most likely ones. */
export interface StepSampling {
  sampler: NativeSampler;
  /** One for each sequence, all with device settings. */
  samplers: readonly Sampler[];
}

interface StartedStep {
  /** The sequences by row; undefined where one left. */
  rows: (Sequence | undefined)[];
  /** A token for each row, once the step was waited for. */
  tokens?: number[];
}

/**
 * Decode steps that start before the host knows the tokens of the step before: these stay on the device, and the host reads them while
 * the next step runs. So the device never waits for the host.
 *
 * A sequence whose answer ends with the token before leaves the steps under way: their tokens are taken off it again.
 */
export class AheadSteps {
  /** The steps that were started and not finished, oldest first. */
  readonly #started: StartedStep[] = [];

  constructor(readonly decoder: Decoder) {}

  /** How many steps were started and not finished. */
  get pending(): number {
    return this.#started.length;
  }

  /**
   * Starts a step that appends one token to each sequence.
   *
   * @param ids of the tokens; undefined for those of the step that was started before, over the same sequences
   */
  start(sequences: readonly Sequence[], ids: readonly number[] | undefined, sampling?: StepSampling): void {
    const step = this.decoder.batch.advance(sequences, ids);
    const { logits } = this.decoder.computeAhead(step);
    if (sampling) sampling.sampler.start(logits, sampling.samplers, step.ids);
    step.ids.startRead();
    this.#started.push({ rows: [...sequences] });
  }

  /** Waits for the oldest step. Returns a token for each sequence that it started with, -1 where no logit is finite. */
  finish(): number[] {
    const step = this.#started.shift();
    return step ? this.#tokensOf(step) : [];
  }

  /** Waits for all steps under way. Their tokens remain for {@link finish}. */
  wait(): void {
    for (const step of this.#started) this.#tokensOf(step);
  }

  #tokensOf(step: StartedStep): number[] {
    if (!step.tokens) {
      const tokens = new Int32Array(step.rows.length);
      this.decoder.model.device.finishRead(tokens);
      step.tokens = Array.from(tokens);
    }
    return step.tokens;
  }

  /** Takes the tokens of the steps under way off a sequence. The steps go on with the others. */
  leave(sequence: Sequence): void {
    let tokens = 0;
    for (const { rows } of this.#started) {
      const row = rows.indexOf(sequence);
      if (row < 0) continue;
      rows[row] = undefined;
      tokens++;
    }
    if (tokens > 0) this.decoder.pool.truncate(sequence, sequence.length - tokens);
  }

  /** Waits for the steps under way and takes their tokens off the sequences again. */
  drop(): void {
    this.wait();
    for (const sequence of this.#started.flatMap(({ rows }) => rows)) {
      if (sequence) this.leave(sequence);
    }
    this.#started.length = 0;
  }
}
