import {
  forcedArguments,
  type HeadRotation,
  rotationArguments,
  type ScoreOptions,
  scorerArguments,
  type Selection,
  type SelectOptions,
  type Sequences,
} from "./cache_options.ts";
import type { Device } from "./device.ts";
import { Handle, pointerFrom } from "./handle.ts";
import {
  type CacheBytes,
  cacheDescStruct,
  type CacheShape,
  type Counters,
  readCacheBytes,
  readCounters,
} from "./structs.ts";
import { ENUMS, STRUCT_BYTES } from "./symbols.ts";
import type { Tensor } from "./tensor.ts";

export type { HeadRotation, ScoreOptions, Selection, SelectOptions, Sequences };

export type CacheField = keyof typeof ENUMS.ps_cache_field;

/**
 * Paged keys and values of all layers, and the statistics of every page (`tests/fixtures/unique_reference.py`). The
 * caller decides which physical page belongs to which sequence: the cache only gets slots and page tables.
 */
export class KvCache extends Handle {
  readonly shape: CacheShape;

  private constructor(readonly device: Device, pointer: Deno.PointerObject, shape: CacheShape) {
    super(pointer);
    this.shape = shape;
    device.adopt(this);
  }

  /** @throws {NativeError} when the shape is refused, or there is not enough memory. */
  static create(device: Device, shape: CacheShape): KvCache {
    const out = new BigUint64Array(1);
    device.check(device.native.ps_cache_create(device.pointer, cacheDescStruct(shape), out));
    return new KvCache(device, pointerFrom(out), Object.freeze({ ...shape }));
  }

  /** What products of queries and keys are multiplied by unless a call says otherwise. */
  get attentionScale(): number {
    return this.shape.attentionScale ?? 1 / Math.sqrt(this.shape.headDim);
  }

  /** How many bytes a cache of this shape takes. */
  static measure(device: Device, shape: CacheShape): CacheBytes {
    const out = new Uint8Array(STRUCT_BYTES.ps_cache_bytes);
    device.check(device.native.ps_cache_measure(device.pointer, cacheDescStruct(shape), out));
    return readCacheBytes(out);
  }

  /**
   * Stores keys and values and updates the statistics of their pages.
   *
   * @param k f32 `[T, Hk, d]`
   * @param v f32 `[T, Hk, d]`
   * @param slots i32 `[T]`: physical page * page size + position in the page; ascending within a page
   */
  append(layer: number, k: Tensor, v: Tensor, slots: Tensor): void {
    this.device.check(
      this.device.native.ps_append_kv(this.pointer, layer, k.struct, v.struct, slots.struct),
    );
  }

  /**
   * Normalizes and rotates queries and keys, then {@link append}s the keys, in one call.
   *
   * @param q f32 `[T, Hq, d]`, changed in place
   * @param k f32 `[T, Hk, d]`; its contents are undefined afterwards
   * @param v f32 `[T, Hk, d]`
   * @param slots as in {@link append}
   */
  appendRotated(layer: number, rotation: HeadRotation, q: Tensor, k: Tensor, v: Tensor, slots: Tensor): void {
    const heads = [q.struct, k.struct, v.struct, slots.struct] as const;
    this.device.check(
      this.device.native.ps_append_rotated(this.pointer, layer, ...rotationArguments(rotation), ...heads),
    );
  }

  /** Recomputes the statistics of a page over its first `numTokens` tokens, in all layers, after a truncation. */
  renewPage(page: number, numTokens: number): void {
    this.device.check(this.device.native.ps_page_statistics(this.pointer, page, numTokens));
  }

  /**
   * Scores every page for one query per sequence: the largest over the query heads of a KV head.
   *
   * @param q f32 `[B, Hq, d]`
   * @param scores f32 `[B, Hk, M]`, written for the pages that a sequence has
   */
  scorePages(
    layer: number,
    q: Tensor,
    sequences: Sequences,
    scores: Tensor,
    options: ScoreOptions = {},
  ): void {
    const { pageTable, lengths } = sequences;
    this.device.check(
      this.device.native.ps_page_score(
        this.pointer,
        layer,
        ...scorerArguments(options),
        q.struct,
        pageTable.struct,
        lengths.struct,
        scores.struct,
      ),
    );
  }

  /**
   * Selects the k best pages of each sequence and KV head; k is the last dimension of `selection.selected`. A sequence of at most k
   * pages keeps all of them; otherwise the last `recentPages` and the first `sinkPages` are always selected.
   */
  selectPages(
    scores: Tensor,
    lengths: Tensor,
    selection: Selection,
    options: SelectOptions = {},
  ): void {
    this.device.check(
      this.device.native.ps_page_select(
        this.pointer,
        ...forcedArguments(options),
        scores.struct,
        lengths.struct,
        selection.selected.struct,
        selection.counts.struct,
      ),
    );
  }

  /**
   * {@link scorePages} and {@link selectPages} in one, faster. A cache with groups of pages scores groups first, for `unique` and `mean`,
   * and can then miss a page whose group scored low.
   *
   * @param scores f32 `[B, Hk, M]`, scratch
   */
  choosePages(
    layer: number,
    q: Tensor,
    sequences: Sequences,
    scores: Tensor,
    selection: Selection,
    options: ScoreOptions & SelectOptions = {},
  ): void {
    this.device.check(
      this.device.native.ps_page_choose(
        this.pointer,
        layer,
        ...scorerArguments(options),
        ...forcedArguments(options),
        q.struct,
        sequences.pageTable.struct,
        sequences.lengths.struct,
        scores.struct,
        selection.selected.struct,
        selection.counts.struct,
      ),
    );
  }

  /**
   * Attention of one query per sequence over the selected pages, or over all pages without a selection.
   *
   * @param q f32 `[B, Hq, d]`
   * @param out f32 `[B, Hq, d]`
   */
  attend(
    layer: number,
    q: Tensor,
    sequences: Sequences,
    out: Tensor,
    options: { selection?: Selection; scale?: number; window?: number } = {},
  ): void {
    const { selection } = options;
    this.device.check(
      this.device.native.ps_decode_attention(
        this.pointer,
        layer,
        options.scale ?? this.attentionScale,
        options.window ?? 0,
        q.struct,
        sequences.pageTable.struct,
        sequences.lengths.struct,
        selection ? selection.selected.struct : null,
        selection ? selection.counts.struct : null,
        out.struct,
      ),
    );
  }

  /**
   * {@link choosePages}, then {@link attend} over the chosen pages: the sparse attention of a decode step in one call.
   *
   * @param scores f32 `[B, Hk, M]`, scratch
   * @param out f32 `[B, Hq, d]`
   */
  attendSparse(
    layer: number,
    q: Tensor,
    sequences: Sequences,
    { scores, selection }: { scores: Tensor; selection: Selection },
    out: Tensor,
    options: ScoreOptions & SelectOptions & { scale?: number } = {},
  ): void {
    this.device.check(
      this.device.native.ps_sparse_attention(
        this.pointer,
        layer,
        ...scorerArguments(options),
        ...forcedArguments(options),
        options.scale ?? this.attentionScale,
        q.struct,
        sequences.pageTable.struct,
        sequences.lengths.struct,
        scores.struct,
        selection.selected.struct,
        selection.counts.struct,
        out.struct,
      ),
    );
  }

  /**
   * Causal attention of T consecutive tokens of one sequence whose keys and values are stored already.
   *
   * @param start position of the first token
   * @param q f32 `[T, Hq, d]`
   * @param pageTable i32 `[M]`
   * @param out f32 `[T, Hq, d]`
   */
  attendPrefill(
    layer: number,
    start: number,
    q: Tensor,
    pageTable: Tensor,
    out: Tensor,
    options: { scale?: number; window?: number } = {},
  ): void {
    this.device.check(
      this.device.native.ps_prefill_attention(
        this.pointer,
        layer,
        options.scale ?? this.attentionScale,
        options.window ?? 0,
        start,
        q.struct,
        pageTable.struct,
        out.struct,
      ),
    );
  }

  /** One field of one physical page: keys and values `[Hk, S, d]`, std `[Hk]`, the rest `[Hk, d]`. */
  readPage(layer: number, page: number, field: CacheField): Float32Array<ArrayBuffer> {
    const { numKvHeads, headDim, pageSize } = this.shape;
    const width = field === "std" ? 1 : field === "keys" || field === "values" ? pageSize * headDim : headDim;
    const out = new Float32Array(numKvHeads * width);
    this.device.check(
      this.device.native.ps_cache_read(
        this.pointer,
        layer,
        page,
        ENUMS.ps_cache_field[field],
        new Uint8Array(out.buffer),
        BigInt(out.length),
      ),
    );
    return out;
  }

  /** Work done by the operations on this cache since it was created or the counters were reset. */
  counters(): Counters {
    const out = new Uint8Array(STRUCT_BYTES.ps_counters);
    this.device.check(this.device.native.ps_cache_counters(this.pointer, out));
    return readCounters(out);
  }

  resetCounters(): void {
    this.device.check(this.device.native.ps_cache_reset_counters(this.pointer));
  }

  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_cache_close(pointer);
    this.device.forget(this);
  }
}

/**
 * The share of every page in the exact softmax of each query head: the attention that the page receives in dense attention, which
 * the scores only predict. Reads every key, so it is for inspecting a step, not part of one.
 *
 * @param q f32 `[B, Hq, d]`
 * @param mass f32 `[B, Hq, M]`, written for the pages that a sequence has; a row sums to 1
 * @param options.window only the last tokens count; 0 for all
 * @param options.scale multiplies q.k; default {@link KvCache.attentionScale}
 */
export function pageMass(
  cache: KvCache,
  layer: number,
  q: Tensor,
  sequences: Sequences,
  mass: Tensor,
  { window = 0, scale = cache.attentionScale }: { window?: number; scale?: number } = {},
): void {
  const { pageTable, lengths } = sequences;
  cache.device.check(
    cache.device.native.ps_page_mass(
      cache.pointer,
      layer,
      scale,
      window,
      q.struct,
      pageTable.struct,
      lengths.struct,
      mass.struct,
    ),
  );
}
