import type { CacheShape } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { Model, PrefillHooks } from "./model.ts";
import { type TensorNeed, tensorsOwnedBy } from "./owned_tensors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import { MIN_CHUNK_TOKENS } from "./pages/prefix_tree.ts";
import type { Sequence } from "./pages/sequence.ts";

/** Called after every chunk with its normed hidden states `[T, H]`, which the next chunk overwrites, and the tokens done. */
export type OnChunk = (hidden: Tensor, doneTokens: number) => void;

/** Tokens of the next chunk, such that the last one is not too short either. */
function nextChunk(tokens: number, chunkTokens: number): number {
  const rest = tokens - chunkTokens;
  const isShort = rest > 0 && rest < MIN_CHUNK_TOKENS && chunkTokens >= 2 * MIN_CHUNK_TOKENS;
  return isShort ? tokens - MIN_CHUNK_TOKENS : chunkTokens;
}

/** The tensors of {@link Prefill}. */
export function prefillNeeds(
  chunkTokens: number,
  { maxPagesPerSequence }: CacheShape,
): Record<"numbers" | "pageTable", TensorNeed> {
  return {
    numbers: { dtype: "i32", shape: [3, chunkTokens] },
    pageTable: { dtype: "i32", shape: [maxPagesPerSequence] },
  };
}

/** Appends prompts to the cache, chunk by chunk. */
export class Prefill implements Disposable {
  /** i32 `[3, C]`: ids, positions, slots of a chunk */
  readonly #numbers: Tensor;
  readonly #pageTable: Tensor;
  readonly #chunkTokens: number;
  readonly #owned: DisposableStack;

  constructor(readonly model: Model, readonly pool: KvPool, readonly policy: PagePolicy) {
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, model.device);
    this.#chunkTokens = model.activations.maxTokens;
    const { numbers, pageTable } = prefillNeeds(this.#chunkTokens, pool.shape);
    this.#numbers = createTensor(numbers.dtype, numbers.shape);
    this.#pageTable = createTensor(pageTable.dtype, pageTable.shape);
    this.#owned = owned.move();
  }

  /** Appends all `ids` to the sequence. */
  async run(sequence: Sequence, ids: readonly number[], hooks: PrefillHooks, onChunk?: OnChunk): Promise<void> {
    for await (const { hidden, doneTokens } of this.chunks(sequence, ids, hooks)) onChunk?.(hidden, doneTokens);
  }

  /**
   * Appends all `ids` to the sequence, a chunk per turn of the caller, who gets what {@link OnChunk} gets. `parts` says before each chunk
   * in how many parts a chunk of full length is read.
   */
  async *chunks(
    sequence: Sequence,
    ids: readonly number[],
    hooks: PrefillHooks,
    parts: () => number = () => 1,
  ): AsyncGenerator<{ hidden: Tensor; doneTokens: number }> {
    for (let doneTokens = 0; doneTokens < ids.length;) {
      const chunk = ids.slice(
        doneTokens,
        doneTokens + nextChunk(ids.length - doneTokens, Math.ceil(this.#chunkTokens / parts())),
      );
      const hidden = await this.#runChunk(sequence, chunk, hooks);
      doneTokens += chunk.length;
      yield { hidden, doneTokens };
    }
  }

  async #runChunk(sequence: Sequence, ids: readonly number[], hooks: PrefillHooks): Promise<Tensor> {
    const start = sequence.length;
    const count = ids.length;
    const numbers = new Int32Array(3 * count);
    numbers.set(ids);
    for (let index = 0; index < count; index++) numbers[count + index] = start + index;
    numbers.set(sequence.extend(count), 2 * count);
    this.#numbers.write(numbers);
    this.#pageTable.write(Int32Array.from(sequence.pages));
    const chunk = {
      ids: this.#numbers.flat(0, count),
      positions: this.#numbers.flat(count, count),
      slots: this.#numbers.flat(2 * count, count),
      pageTable: this.#pageTable.rows(0, sequence.pages.length),
      start,
    };
    return await this.model.prefill(this.pool, this.policy, chunk, hooks);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
