import type { Device } from "../ffi/device.ts";
import type { Selection, Sequences } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { type TensorNeed, tensorsOwnedBy } from "./owned_tensors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import type { Sequence } from "./pages/sequence.ts";

/** A decode step as the operations see it: one token for each of B sequences. */
export interface DecodeStep {
  /** i32 `[B]` each: token ids, positions, slots */
  ids: Tensor;
  positions: Tensor;
  slots: Tensor;
  sequences: Sequences;
  /** f32 `[B, Hk, M]` and the selection, or undefined when no sequence has more pages than the budget */
  selecting: { scores: Tensor; selection: Selection } | undefined;
}

/** Observes decode steps while they run. It may start reads and operations, and must not change the tensors that it receives. */
export interface StepObserver {
  /**
   * Called when the attention of a layer has run. If the layer selects pages, `step.selecting` contains the pages that it read.
   *
   * @param q f32 `[B, Hq, d]`, normed and rotated, as attention reads them
   */
  afterAttention(layer: number, q: Tensor, step: DecodeStep): void;
}

/** The tensors of {@link DecodeBatch}. */
export function decodeNeeds(
  { maxSequences, maxPagesPerSequence, numKvHeads }: CacheShape,
  { budgetPages }: PagePolicy,
): Record<"numbers" | "pageTable" | "scores" | "selected" | "counts", TensorNeed> {
  // A budget that no sequence can exceed never selects, whatever its size.
  const selectedPages = Math.min(budgetPages, maxPagesPerSequence);
  return {
    numbers: { dtype: "i32", shape: [4, maxSequences] },
    pageTable: { dtype: "i32", shape: [maxSequences, maxPagesPerSequence] },
    scores: { dtype: "f32", shape: [maxSequences, numKvHeads, maxPagesPerSequence] },
    selected: { dtype: "i32", shape: [maxSequences, numKvHeads, selectedPages] },
    counts: { dtype: "i32", shape: [maxSequences, numKvHeads] },
  };
}

/** Device memory for the inputs of a decode step, updated in place at every step. */
export class DecodeBatch implements Disposable {
  readonly #numbers: Tensor;
  readonly #pageTable: Tensor;
  readonly #scores: Tensor;
  readonly #selected: Tensor;
  readonly #counts: Tensor;
  /** What the device's page table contains: by row, the sequence, its epoch, and how many of its pages are written. */
  #written: { sequence: Sequence; epoch: number; numPages: number }[] = [];
  /** The steps so far, by their number of sequences and whether they select: one object for each kind. */
  readonly #steps = new Map<string, DecodeStep>();
  #staging = new Int32Array(0);
  readonly #owned: DisposableStack;

  /** @param selects whether a step over sequences of these lengths (tokens) selects pages */
  constructor(
    device: Device,
    readonly pool: KvPool,
    policy: PagePolicy,
    readonly selects: (lengths: readonly number[]) => boolean,
  ) {
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, device);
    const needs = decodeNeeds(pool.shape, policy);
    const make = ({ dtype, shape }: TensorNeed): Tensor => createTensor(dtype, shape);
    this.#numbers = make(needs.numbers);
    this.#pageTable = make(needs.pageTable);
    this.#scores = make(needs.scores);
    this.#selected = make(needs.selected);
    this.#counts = make(needs.counts);
    this.#owned = owned.move();
  }

  /**
   * Appends one token to each sequence and describes the step.
   *
   * @param ids of the tokens; undefined where the step before leaves them in its `ids` ({@link AheadSteps})
   */
  advance(sequences: readonly Sequence[], ids: readonly number[] | undefined): DecodeStep {
    const count = sequences.length;
    if (this.#staging.length !== 4 * count) this.#staging = new Int32Array(4 * count);
    sequences.forEach((sequence, row) => {
      const [slot = 0] = sequence.extend(1);
      this.#staging[row] = ids?.[row] ?? 0;
      this.#staging[count + row] = sequence.length - 1;
      this.#staging[2 * count + row] = slot;
      this.#staging[3 * count + row] = sequence.length;
    });
    if (ids) this.#numbers.write(this.#staging);
    else this.#numbers.flat(count, 3 * count).write(this.#staging.subarray(count));
    this.#writePageTable(sequences);
    const selects = this.selects(sequences.map((sequence) => sequence.length));
    return this.#describe(count, selects);
  }

  /** Writes the rows of sequences that are new in them or were truncated, and the pages that were added to the others. */
  #writePageTable(sequences: readonly Sequence[]): void {
    sequences.forEach((sequence, row) => {
      const known = this.#written[row];
      const first = known?.sequence === sequence && known.epoch === sequence.epoch ? known.numPages : 0;
      const numPages = sequence.pages.length;
      if (first < numPages) {
        this.#pageTable.rows(row, 1).columns(first, 1).write(Int32Array.from(sequence.pages.slice(first)));
      }
      this.#written[row] = { sequence, epoch: sequence.epoch, numPages };
    });
    this.#written.length = sequences.length;
  }

  #describe(count: number, selects: boolean): DecodeStep {
    const kind = `${count} ${selects}`;
    const known = this.#steps.get(kind);
    if (known) return known;
    const numbers = (row: number): Tensor => this.#numbers.flat(row * count, count);
    const step: DecodeStep = {
      ids: numbers(0),
      positions: numbers(1),
      slots: numbers(2),
      sequences: { pageTable: this.#pageTable.rows(0, count), lengths: numbers(3) },
      selecting: selects
        ? {
          scores: this.#scores.rows(0, count),
          selection: { selected: this.#selected.rows(0, count), counts: this.#counts.rows(0, count) },
        }
        : undefined,
    };
    this.#steps.set(kind, step);
    return step;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
