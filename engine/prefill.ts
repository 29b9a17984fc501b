import type { Selection } from "../ffi/cache_options.ts";
import type { Device } from "../ffi/device.ts";
import { embedding } from "../ffi/ops.ts";
import type { CacheShape } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { Model, PrefillHooks } from "./model.ts";
import type { PromptRun } from "./prompt_runs.ts";
import { type TensorNeed, tensorsOwnedBy } from "./owned_tensors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { type PagePolicy, PREFILL_TILE_TOKENS, tileSelects } from "./pages/page_policy.ts";
import { MIN_CHUNK_TOKENS } from "./pages/prefix_tree.ts";
import type { Sequence } from "./pages/sequence.ts";

/** Called after every chunk with its normed hidden states `[T, H]`, which the next chunk overwrites, and the tokens done. */
export type OnChunk = (hidden: Tensor, doneTokens: number) => void;

/** Tokens to append to a sequence. */
export interface PromptPart {
  sequence: Sequence;
  ids: readonly number[];
}

/** Counts of tokens, from and to. */
type Range = readonly [from: number, to: number];

/**
 * Tokens that products round alike, so that a prompt may be read together with others: each of them, and all together, have so many. On the CPU a
 * prompt then gets the bits that it gets alone; on CUDA, sums may differ in their order.
 */
const ALIKE: Readonly<Record<Device["backend"], readonly Range[]>> = {
  cpu: [[17, 256]],
  cuda: [[17, 128], [257, Infinity]],
};

function isAlike(backend: Device["backend"], tokens: number): boolean {
  return ALIKE[backend].some(([from, to]) => tokens >= from && tokens <= to);
}

/**
 * Indices of prompts, in groups that are read together: all in one group if products round their total as they round each prompt, and otherwise
 * runs of neighbours of which that is true, and single prompts.
 * @param counts tokens of each prompt
 */
export function jointGroups(backend: Device["backend"], counts: readonly number[]): number[][] {
  const all = counts.map((_, index) => index);
  const sum = (group: readonly number[]): number => group.reduce((total, index) => total + (counts[index] ?? 0), 0);
  if (isAlike(backend, sum(all))) return [all];
  const groups: number[][] = [];
  for (const index of all) {
    const last = groups.at(-1);
    if (last && isAlike(backend, sum([...last, index]))) last.push(index);
    else groups.push([index]);
  }
  return groups;
}

/**
 * Tokens of the next of `tokens` tokens at position `start`, such that the last chunk is not too short either. Chunks end with a tile where
 * tiles select, so that a tile does not depend on where a prompt was cut.
 */
export function nextChunk(policy: PagePolicy, start: number, tokens: number, chunkTokens: number): number {
  const whole = Math.floor(chunkTokens / PREFILL_TILE_TOKENS) * PREFILL_TILE_TOKENS;
  const tile = policy.prefill && whole > 0 ? PREFILL_TILE_TOKENS : 1;
  const aligned = (count: number): number => Math.max(1, count - (start + count) % tile);
  const from = (policy.prefill?.fromTokens ?? 0) - start;
  const most = Math.min(aligned(chunkTokens), from > 0 ? from : Infinity);
  const rest = tokens - most;
  const isShort = rest > 0 && rest < MIN_CHUNK_TOKENS && most >= 2 * MIN_CHUNK_TOKENS;
  return isShort ? aligned(tokens - MIN_CHUNK_TOKENS) : Math.min(most, tokens);
}

/** The tensors of {@link Prefill}. */
export function prefillNeeds(
  chunkTokens: number,
  { maxSequences, maxPagesPerSequence }: CacheShape,
): Record<"numbers" | "pageTables", TensorNeed> {
  return {
    numbers: { dtype: "i32", shape: [3, chunkTokens] },
    pageTables: { dtype: "i32", shape: [maxSequences * maxPagesPerSequence] },
  };
}

/** Appends prompts to the cache, chunk by chunk. */
export class Prefill implements Disposable {
  /** i32 `[3, C]`: ids, positions, slots of a chunk */
  readonly #numbers: Tensor;
  /** Those of the prompts of a chunk, one after another. */
  readonly #pageTables: Tensor;
  readonly #chunkTokens: number;
  readonly #owned: DisposableStack;
  /** What tiles select, by the number of pages. */
  readonly #selections = new Map<number, Selection>();

  constructor(readonly model: Model, readonly pool: KvPool) {
    using owned = new DisposableStack();
    const createTensor = tensorsOwnedBy(owned, model.device);
    this.#chunkTokens = model.activations.maxTokens;
    const { numbers, pageTables } = prefillNeeds(this.#chunkTokens, pool.shape);
    this.#numbers = createTensor(numbers.dtype, numbers.shape);
    this.#pageTables = createTensor(pageTables.dtype, pageTables.shape);
    this.#owned = owned.move();
  }

  /** Appends all `ids` to the sequence. */
  async run(
    sequence: Sequence,
    ids: readonly number[],
    policy: PagePolicy,
    hooks: PrefillHooks,
    onChunk?: OnChunk,
  ): Promise<void> {
    for await (const { hidden, doneTokens } of this.chunks(sequence, ids, policy, hooks)) onChunk?.(hidden, doneTokens);
  }

  /**
   * Appends all `ids` to the sequence, a chunk per turn of the caller, who gets what {@link OnChunk} gets. `parts` says before each chunk
   * in how many parts a chunk of full length is read.
   */
  async *chunks(
    sequence: Sequence,
    ids: readonly number[],
    policy: PagePolicy,
    hooks: PrefillHooks,
    parts: () => number = () => 1,
  ): AsyncGenerator<{ hidden: Tensor; doneTokens: number }> {
    for (let doneTokens = 0; doneTokens < ids.length;) {
      const chunk = ids.slice(
        doneTokens,
        doneTokens +
          nextChunk(policy, sequence.length, ids.length - doneTokens, Math.ceil(this.#chunkTokens / parts())),
      );
      const hidden = await this.#runChunk([{ sequence, ids: chunk }], policy, hooks);
      doneTokens += chunk.length;
      yield { hidden, doneTokens };
    }
  }

  /** Tokens of prompts that {@link together} reads at once. @param parts in which chunks are read */
  jointTokens(parts: number): number {
    const most = Math.max(...ALIKE[this.model.device.backend].map(([, to]) => to));
    return Math.min(most, Math.ceil(this.#chunkTokens / parts));
  }

  /** Whether the next `tokens` of a prompt, from position `start` on, may be read together with other prompts. */
  isShort(policy: PagePolicy, start: number, tokens: number): boolean {
    return isAlike(this.model.device.backend, tokens) &&
      nextChunk(policy, start, tokens, this.jointTokens(1)) === tokens;
  }

  /** Appends short prompts in one chunk, {@link jointTokens} at most. Returns the normed hidden states `[N, H]` of the last token of each. */
  async together(prompts: readonly PromptPart[], policy: PagePolicy, hooks: PrefillHooks): Promise<Tensor> {
    const hidden = await this.#runChunk(prompts, policy, hooks);
    let end = 0;
    const rows = this.#numbers.flat(0, prompts.length);
    rows.write(Int32Array.from(prompts, ({ ids }) => (end += ids.length) - 1));
    const last = this.model.activations.views(prompts.length).delta;
    embedding(this.model.device, rows, hidden, last);
    return last;
  }

  /** Appends the ids of all prompts in one chunk. Returns the normed hidden states `[T, H]` of all their tokens. */
  async #runChunk(prompts: readonly PromptPart[], policy: PagePolicy, hooks: PrefillHooks): Promise<Tensor> {
    const count = prompts.reduce((sum, { ids }) => sum + ids.length, 0);
    const numbers = new Int32Array(3 * count);
    const runs: PromptRun[] = [];
    let row = 0;
    let numPages = 0;
    for (const { sequence, ids } of prompts) {
      const start = sequence.length;
      numbers.set(ids, row);
      for (let index = 0; index < ids.length; index++) numbers[count + row + index] = start + index;
      numbers.set(sequence.extend(ids.length), 2 * count + row);
      const pageTable = this.#pageTables.flat(numPages, sequence.pages.length);
      runs.push({ count: ids.length, start, pageTable, selection: this.#selection(policy, start, ids.length) });
      row += ids.length;
      numPages += sequence.pages.length;
    }
    this.#numbers.write(numbers);
    this.#pageTables.write(Int32Array.from(prompts.flatMap(({ sequence }) => sequence.pages)));
    const chunk = {
      ids: this.#numbers.flat(0, count),
      positions: this.#numbers.flat(count, count),
      slots: this.#numbers.flat(2 * count, count),
      runs,
    };
    return await this.model.prefill(this.pool, policy, chunk, hooks);
  }

  /** Memory for what the tiles of a chunk select; undefined if none of them does. */
  #selection(policy: PagePolicy, start: number, count: number): Selection | undefined {
    const [first, last] = [start, start + count - 1].map((position) => Math.floor(position / PREFILL_TILE_TOKENS));
    if (first === undefined || last === undefined || !policy.prefill) return undefined;
    if (!tileSelects(policy, last * PREFILL_TILE_TOKENS)) return undefined;
    const { budgetPages } = policy.prefill;
    let selection = this.#selections.get(budgetPages);
    if (!selection) {
      const rows = [Math.ceil(this.#chunkTokens / PREFILL_TILE_TOKENS) + 1, this.pool.shape.numKvHeads];
      const createTensor = tensorsOwnedBy(this.#owned, this.model.device);
      selection = { selected: createTensor("i32", [...rows, budgetPages]), counts: createTensor("i32", rows) };
      this.#selections.set(budgetPages, selection);
    }
    const tiles = last - first + 1;
    return { selected: selection.selected.rows(0, tiles), counts: selection.counts.rows(0, tiles) };
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
