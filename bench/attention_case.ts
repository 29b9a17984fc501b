/** The filled cache of one case, with queries, page tables and buffers for the results. */
import type { EventLoopYield } from "../engine/event_loop.ts";
import { PageAllocator } from "../engine/pages/page_table.ts";
import { Sequence } from "../engine/pages/sequence.ts";
import type { Device } from "../ffi/device.ts";
import { KvCache, type Sequences } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { type AttentionCase, pagesOf } from "./attention_plan.ts";
import { fillSequences } from "./fill_cache.ts";
import { noiseFrom, wordsFrom } from "./random_numbers.ts";

/** Device memory of one case. */
export class AttentionInputs implements Disposable {
  readonly cache: KvCache;
  readonly sequences: readonly Sequence[];
  readonly tables: Sequences;
  /** f32 `[B, Hq, d]` each */
  readonly queries: readonly Tensor[];
  /** f32 `[B, Hq, d]` */
  readonly out: Tensor;
  /** f32 `[B, Hk, d]`, and the slots i32 `[B]` of the sequences' last tokens. */
  readonly lastKeys: Tensor;
  readonly lastSlots: Tensor;
  readonly #device: Device;
  readonly #owned: DisposableStack;

  private constructor(
    device: Device,
    wanted: AttentionCase,
    filled: { cache: KvCache; sequences: readonly Sequence[]; keys: Float32Array<ArrayBuffer> },
    numQueries: number,
    owned: DisposableStack,
  ) {
    const { batch, queryHeads, kvHeads, headDim } = wanted;
    this.#device = device;
    this.#owned = owned;
    this.cache = filled.cache;
    this.sequences = filled.sequences;
    this.tables = this.#placeTables(wanted);
    this.queries = Array.from(
      { length: numQueries },
      (_, index) => this.upload(queriesNear(filled.keys, wanted, 11 + index), [batch, queryHeads, headDim]),
    );
    this.out = this.create("f32", [batch, queryHeads, headDim]);
    this.lastKeys = this.upload(filled.keys.slice(0, batch * kvHeads * headDim), [batch, kvHeads, headDim]);
    this.lastSlots = this.upload(Int32Array.from(this.sequences, lastSlot), [batch]);
    this.#owned = owned.move();
  }

  /** Allocates the cache and fills it. */
  static async open(
    device: Device,
    wanted: AttentionCase,
    shape: CacheShape,
    numQueries: number,
    yieldToEventLoop: EventLoopYield,
  ): Promise<AttentionInputs> {
    using owned = new DisposableStack();
    const cache = owned.use(KvCache.create(device, shape));
    const allocator = new PageAllocator(shape.numPages, shape.groupPages || 1);
    const sequences = Array.from({ length: wanted.batch }, () => new Sequence(allocator, shape.pageSize));
    const keys = await fillSequences(device, cache, sequences, wanted.contextTokens, yieldToEventLoop);
    return new AttentionInputs(device, wanted, { cache, sequences, keys }, numQueries, owned);
  }

  create(dtype: "f32" | "i32", shape: readonly number[]): Tensor {
    const tensor = this.#device.createTensor(dtype, shape);
    this.#owned.use(tensor.buffer);
    return tensor;
  }

  upload(data: Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>, shape: readonly number[]): Tensor {
    const tensor = this.create(data instanceof Float32Array ? "f32" : "i32", shape);
    tensor.write(data);
    return tensor;
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #placeTables(wanted: AttentionCase): Sequences {
    const pages = pagesOf(wanted);
    const table = new Int32Array(wanted.batch * pages);
    this.sequences.forEach((sequence, row) => table.set(sequence.pages, row * pages));
    return {
      pageTable: this.upload(table, [wanted.batch, pages]),
      lengths: this.upload(new Int32Array(wanted.batch).fill(wanted.contextTokens), [wanted.batch]),
    };
  }
}

function lastSlot({ length, pages, pageSize }: Sequence): number {
  return (pages.at(-1) ?? 0) * pageSize + (length - 1) % pageSize;
}

/** Queries `[B, Hq, d]`, each near some key of its KV head, as in a model. */
function queriesNear(keys: Float32Array, wanted: AttentionCase, seed: number): Float32Array<ArrayBuffer> {
  const { batch, queryHeads, kvHeads, headDim } = wanted;
  const [next, noise] = [wordsFrom(seed), noiseFrom(seed + 100)];
  const tokens = keys.length / (kvHeads * headDim);
  const out = new Float32Array(batch * queryHeads * headDim);
  for (let row = 0; row < batch * queryHeads; row++) {
    const kvHead = Math.floor(row % queryHeads / (queryHeads / kvHeads));
    const from = (next() % tokens * kvHeads + kvHead) * headDim;
    for (let dim = 0; dim < headDim; dim++) out[row * headDim + dim] = 0.6 * (keys[from + dim] ?? 0) + noise(0.5);
  }
  return out;
}
