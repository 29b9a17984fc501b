import type { Tensor } from "../ffi/tensor.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import type { Model } from "./model.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import type { Sequence } from "./pages/sequence.ts";

/** Milliseconds after which the event loop gets a turn: signals and progress need it. */
const BREATH_MS = 20;

/** Thrown out of a prefill that the signal ended. */
export class Aborted extends Error {
  override readonly name = "Aborted";
}

/** A function to await between pieces of work: now and then it lets the event loop run, and it throws once aborted. */
export function breather(signal: AbortSignal | undefined): () => Promise<void> {
  let last = performance.now();
  return async () => {
    if (signal?.aborted) throw new Aborted();
    if (performance.now() - last < BREATH_MS) return;
    await new Promise((resolve) => setTimeout(resolve, 0));
    last = performance.now();
    if (signal?.aborted) throw new Aborted();
  };
}

/** Takes prompts into the cache, chunk by chunk. */
export class Prefill {
  /** i32 `[3, C]`: ids, positions, slots of a chunk */
  readonly #numbers: Tensor;
  readonly #pageTable: Tensor;
  readonly #chunkTokens: number;

  constructor(readonly model: Model, readonly pool: KvPool, readonly policy: PagePolicy) {
    this.#chunkTokens = model.activations.maxTokens;
    this.#numbers = model.device.createTensor("i32", [3, this.#chunkTokens]);
    this.#pageTable = model.device.createTensor("i32", [pool.shape.maxPagesPerSequence]);
  }

  /**
   * Appends all `ids` to the sequence. After every chunk, `onChunk` gets its normed hidden states `[T, H]`, which the next chunk
   * overwrites, and the number of tokens done.
   */
  async run(
    sequence: Sequence,
    ids: readonly number[],
    breathe: () => Promise<void>,
    onChunk: (hidden: Tensor, doneTokens: number) => void,
  ): Promise<void> {
    for (let first = 0; first < ids.length; first += this.#chunkTokens) {
      const chunk = ids.slice(first, first + this.#chunkTokens);
      const hidden = await this.#runChunk(sequence, chunk, breathe);
      onChunk(hidden, first + chunk.length);
    }
  }

  async #runChunk(sequence: Sequence, ids: readonly number[], breathe: () => Promise<void>): Promise<Tensor> {
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
    return await this.model.prefill(this.pool, this.policy, chunk, breathe);
  }

  close(): void {
    this.#numbers.buffer.close();
    this.#pageTable.buffer.close();
  }
}
