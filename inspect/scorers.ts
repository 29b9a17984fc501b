import type { DecodeStep } from "../engine/decode_batch.ts";
import { tensorsOwnedBy } from "../engine/owned_tensors.ts";
import type { KvPool } from "../engine/pages/kv_pool.ts";
import type { PagePolicy } from "../engine/pages/page_policy.ts";
import type { ScoreOptions, Selection } from "../ffi/kv_cache.ts";
import { pageMass } from "../ffi/page_mass.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { averageGroups } from "./row_math.ts";

/** Scores, masses and choices of the pages of one sequence, computed beside its decode steps. */
export class PageProbe implements Disposable {
  readonly #scores: Tensor;
  readonly #queryMass: Tensor;
  readonly #mass: Tensor;
  readonly #selection: Selection;
  readonly #owned: DisposableStack;
  /** Columns of every array: the most pages that the sequence can have. */
  readonly columns: number;

  constructor(readonly pool: KvPool, readonly policy: PagePolicy) {
    const { numKvHeads, numQueryHeads, maxPagesPerSequence: columns } = pool.shape;
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, pool.cache.device);
    this.columns = columns;
    this.#scores = createTensor("f32", [1, numKvHeads, columns]);
    this.#queryMass = createTensor("f32", [1, numQueryHeads, columns]);
    this.#mass = createTensor("f32", [1, numKvHeads, columns]);
    const budget = Math.min(policy.budgetPages, columns);
    this.#selection = {
      selected: createTensor("i32", [1, numKvHeads, budget]),
      counts: createTensor("i32", [1, numKvHeads]),
    };
    this.#owned = owned.move();
  }

  /** `[Hk, M]`, exact shares averaged over the query heads of a group; `window` in tokens, 0 for all. */
  mass(layer: number, q: Tensor, { sequences }: DecodeStep, window: number): Float32Array<ArrayBuffer> {
    const { numKvHeads, numQueryHeads } = this.pool.shape;
    pageMass(this.pool.cache, layer, q, sequences, this.#queryMass, { window });
    return averageGroups(this.#queryMass.readFloats(), numKvHeads, numQueryHeads / numKvHeads, this.columns);
  }

  /** `[Hk, M]` */
  scores(layer: number, q: Tensor, { sequences }: DecodeStep, options: ScoreOptions): Float32Array<ArrayBuffer> {
    this.pool.cache.scorePages(layer, q, sequences, this.#scores, options);
    return this.#scores.readFloats();
  }

  /** The pages that a scorer would choose, by KV head. */
  chosenBy(layer: number, q: Tensor, step: DecodeStep, options: ScoreOptions): Int32Array[] {
    this.pool.cache.scorePages(layer, q, step.sequences, this.#scores, options);
    return this.#choose(this.#scores, step);
  }

  /** The pages of highest mass `[Hk, M]` beside those that are always read, by KV head. */
  best(mass: Float32Array<ArrayBuffer>, step: DecodeStep): Int32Array[] {
    this.#mass.write(mass);
    return this.#choose(this.#mass, step);
  }

  #choose(scores: Tensor, { sequences }: DecodeStep): Int32Array[] {
    this.pool.cache.selectPages(scores, sequences.lengths, this.#selection, this.policy);
    return readSelection(this.#selection);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** The chosen pages of the first sequence, by KV head. */
export function readSelection({ selected, counts }: Selection): Int32Array[] {
  const [, heads = 1, places = 0] = selected.shape;
  const [pages, used] = [selected.readInts(), counts.readInts()];
  return Array.from({ length: heads }, (_, head) => pages.slice(head * places, head * places + (used[head] ?? 0)));
}
