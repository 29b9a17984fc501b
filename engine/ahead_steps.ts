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

/**
 * Decode steps that start before the host knows the tokens of the step before: these stay on the device, and the host reads them while
 * the next step runs. So the device never waits for the host.
 *
 * A step that turns out not to be wanted, because the token before it ends the answer, is dropped: its token leaves the sequences again.
 */
export class AheadSteps {
  /** The sequences of the steps that were started and not finished, oldest first. */
  readonly #started: (readonly Sequence[])[] = [];

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
    this.#started.push(sequences);
  }

  /** Waits for the oldest step. Returns a token for each of its sequences, -1 where no logit is finite. */
  finish(): number[] {
    const tokens = new Int32Array(this.#started.shift()?.length ?? 0);
    this.decoder.model.device.finishRead(tokens);
    return Array.from(tokens);
  }

  /** Waits for the steps that are under way and takes their tokens off the sequences again. */
  drop(): void {
    while (this.pending > 0) {
      const [sequences = []] = this.#started;
      this.finish();
      for (const sequence of sequences) this.decoder.pool.truncate(sequence, sequence.length - 1);
    }
  }
}
