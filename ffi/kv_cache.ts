import {
  type AppendedHeads,
  choiceArguments,
  forcedArguments,
  headArguments,
  type HeadRotation,
  rotationArguments,
  type ScoreOptions,
  scorerArguments,
  type Selection,
  type SelectionWork,
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

export type { AppendedHeads, HeadRotation, ScoreOptions, Selection, SelectionWork, SelectOptions, Sequences };

/** What {@link KvCache.readPage} reads of a page: its keys and values, or one of its statistics. */
export type CacheField = "keys" | "values" | "mean" | "std" | "var" | "min" | "max";

/**
 * Paged keys and values of all layers with the statistics of every page. The caller decides which physical page belongs to which
 * sequence and passes slots and page tables.
 *
 * Sizes in brackets: T tokens, B sequences, Hq query heads, Hk KV heads, d head size, S tokens per page, M the width of a page table,
 * k selected pages. A logical page is the n-th page of a sequence; a physical page is its place in the pool. Every call throws
 * {@link NativeError} when a tensor does not have the shape or type that it requires.
 */
export class KvCache extends Handle {
  /** The shape that {@link create} was called with. */
  readonly shape: CacheShape;

  private constructor(
    /** The device that owns the cache. */
    readonly device: Device,
    pointer: Deno.PointerObject,
    shape: CacheShape,
  ) {
    super(pointer);
    this.shape = shape;
    device.adopt(this);
  }

  /**
   * Allocates a cache of zeros; the caller closes it, or the device does.
   *
   * @throws {NativeError} when the shape is not supported, or there is not enough memory
   */
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
   * @param layer from 0
   * @param k f32 `[T, Hk, d]`
   * @param v f32 `[T, Hk, d]`
   * @param slots i32 `[T]`: physical page * S + position in the page; ascending within a page
   */
  append(layer: number, k: Tensor, v: Tensor, slots: Tensor): void {
    this.device.check(
      this.device.native.ps_append_kv(this.pointer, layer, k.struct, v.struct, slots.struct),
    );
  }

  /**
   * Normalizes and rotates queries and keys, then does what {@link append} does, in one call.
   *
   * @param layer from 0
   * @param rotation norms and rotation tables
   * @param q f32 `[T, Hq, d]`, changed in place
   * @param k f32 `[T, Hk, d]`; its contents are undefined afterwards
   * @param v f32 `[T, Hk, d]`
   * @param slots as in {@link append}
   */
  appendRotated(layer: number, rotation: HeadRotation, q: Tensor, k: Tensor, v: Tensor, slots: Tensor): void {
    const heads = headArguments({ q, k, v, slots });
    this.device.check(
      this.device.native.ps_append_rotated(this.pointer, layer, ...rotationArguments(rotation), ...heads),
    );
  }

  /** After a truncation: recomputes the statistics of a physical page over its first `numTokens` tokens, in all layers. */
  renewPage(page: number, numTokens: number): void {
    this.device.check(this.device.native.ps_page_statistics(this.pointer, page, numTokens));
  }

  /**
   * Scores every page for one query per sequence. The score of a page is the largest over the query heads of a KV head.
   *
   * @param layer from 0
   * @param q f32 `[B, Hq, d]`
   * @param sequences page tables and lengths
   * @param scores f32 `[B, Hk, M]`, written for the pages of each sequence
   * @param options scorer and weight of the spread
   */
  scorePages(layer: number, q: Tensor, sequences: Sequences, scores: Tensor, options: ScoreOptions = {}): void {
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
   * Selects the k best pages for each sequence and KV head; k is the last dimension of `selection.selected`. A sequence of at most k
   * pages reads all of them. Otherwise the first `sinkPages` and the last `recentPages` are always selected.
   *
   * @param scores f32 `[B, Hk, M]`, as {@link scorePages} writes them
   * @param lengths i32 `[B]`
   * @param selection written
   * @param options pages that are always selected
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
   * {@link scorePages} and {@link selectPages} in one faster call. For `unique` and `mean`, a cache with groups of pages scores groups
   * first and can miss a page whose group scores low.
   *
   * @param layer from 0
   * @param q f32 `[B, Hq, d]`
   * @param sequences page tables and lengths
   * @param scores f32 `[B, Hk, M]`, scratch
   * @param selection written
   * @param options scorer, weight of the spread, pages that are always selected
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
        ...choiceArguments(sequences, { scores, selection }),
      ),
    );
  }

  /**
   * {@link appendRotated} of one token per sequence, then {@link attend} over all pages, in one call. The contents of q and k are undefined
   * afterwards.
   *
   * @param sequences page tables, and lengths that count the appended tokens
   * @param out f32 `[B, Hq, d]`, written
   * @param options.window attends to this many latest tokens only; 0, the default, is all
   */
  appendAttend(
    layer: number,
    rotation: HeadRotation,
    heads: AppendedHeads,
    sequences: Sequences,
    out: Tensor,
    options: { scale?: number; window?: number } = {},
  ): void {
    this.device.check(
      this.device.native.ps_append_attend(
        this.pointer,
        layer,
        ...rotationArguments(rotation),
        ...headArguments(heads),
        options.scale ?? this.attentionScale,
        options.window ?? 0,
        sequences.pageTable.struct,
        sequences.lengths.struct,
        out.struct,
      ),
    );
  }

  /**
   * Attention of one query per sequence over the selected pages, or over all pages without a selection.
   *
   * @param layer from 0
   * @param q f32 `[B, Hq, d]`
   * @param sequences page tables and lengths
   * @param out f32 `[B, Hq, d]`, written
   * @param options.selection pages to read; default: all
   * @param options.scale multiplies q·k; default 1 / sqrt(d)
   * @param options.window attends to this many latest tokens only; 0, the default, is all
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
   * {@link choosePages}, then {@link attend} over the selected pages: the sparse attention of a decode step in one call.
   *
   * @param layer from 0
   * @param q f32 `[B, Hq, d]`
   * @param sequences page tables and lengths
   * @param work.scores f32 `[B, Hk, M]`, scratch
   * @param work.selection written
   * @param out f32 `[B, Hq, d]`, written
   * @param options as in {@link choosePages}; `scale` multiplies q·k, default 1 / sqrt(d)
   */
  attendSparse(
    layer: number,
    q: Tensor,
    sequences: Sequences,
    work: SelectionWork,
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
        ...choiceArguments(sequences, work),
        out.struct,
      ),
    );
  }

  /**
   * {@link appendRotated} of one token per sequence, then {@link attendSparse}, in one call. The contents of q and k are undefined
   * afterwards.
   *
   * @param sequences page tables, and lengths that count the appended tokens
   * @param work as in {@link attendSparse}
   * @param out f32 `[B, Hq, d]`, written
   * @param options as in {@link attendSparse}
   */
  appendSparseAttention(
    layer: number,
    rotation: HeadRotation,
    heads: AppendedHeads,
    sequences: Sequences,
    work: SelectionWork,
    out: Tensor,
    options: ScoreOptions & SelectOptions & { scale?: number } = {},
  ): void {
    this.device.check(
      this.device.native.ps_append_sparse_attention(
        this.pointer,
        layer,
        ...rotationArguments(rotation),
        ...headArguments(heads),
        ...scorerArguments(options),
        ...forcedArguments(options),
        options.scale ?? this.attentionScale,
        ...choiceArguments(sequences, work),
        out.struct,
      ),
    );
  }

  /**
   * Causal attention of T consecutive tokens of one sequence. Their keys and values must already be stored.
   *
   * @param layer from 0
   * @param start position of the first token
   * @param q f32 `[T, Hq, d]`
   * @param pageTable i32 `[M]`
   * @param out f32 `[T, Hq, d]`, written
   * @param options `scale` and `window` as in {@link attend}
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

  /**
   * Chooses pages for the tiles of a prompt's chunk, N tiles of up to `tileTokens` tokens whose limits are multiples of that in the sequence.
   * A tile chooses among the pages before that of its first token; k is the last dimension of `selection.selected`. The score of a page is
   * the sum of its shares over the queries of 16 tokens of the tile, each a softmax of the query's scores.
   *
   * @param layer from 0
   * @param start position of the first token
   * @param q f32 `[T, Hq, d]`
   * @param pageTable i32 `[M]`
   * @param selection written; `[N, Hk, k]` and `[N, Hk]`
   * @param options size of a tile, scorer, weight of the spread, pages that are always selected; `scale` as in {@link attend}
   */
  choosePromptPages(
    layer: number,
    start: number,
    q: Tensor,
    pageTable: Tensor,
    selection: Selection,
    options: { tileTokens: number; scale?: number } & ScoreOptions & SelectOptions,
  ): void {
    this.device.check(
      this.device.native.ps_prefill_choose(
        this.pointer,
        layer,
        ...scorerArguments(options),
        ...forcedArguments(options),
        options.scale ?? this.attentionScale,
        start,
        options.tileTokens,
        q.struct,
        pageTable.struct,
        selection.selected.struct,
        selection.counts.struct,
      ),
    );
  }

  /**
   * {@link attendPrefill} in which a token attends to the selected pages of its tile, and from the page of the tile's first token up to itself.
   *
   * @param layer from 0
   * @param start position of the first token
   * @param q f32 `[T, Hq, d]`
   * @param pageTable i32 `[M]`
   * @param selection as {@link choosePromptPages} writes it, with the same `tileTokens`
   * @param out f32 `[T, Hq, d]`, written
   * @param options `scale` as in {@link attend}
   */
  attendPrefillSparse(
    layer: number,
    start: number,
    q: Tensor,
    pageTable: Tensor,
    selection: Selection,
    out: Tensor,
    options: { tileTokens: number; scale?: number },
  ): void {
    this.device.check(
      this.device.native.ps_sparse_prefill_attention(
        this.pointer,
        layer,
        options.scale ?? this.attentionScale,
        start,
        options.tileTokens,
        q.struct,
        pageTable.struct,
        selection.selected.struct,
        selection.counts.struct,
        out.struct,
      ),
    );
  }

  /**
   * Waits for the device and copies one field of a physical page: keys and values `[Hk, S, d]`, std `[Hk]`, the other statistics
   * `[Hk, d]`.
   *
   * @throws {NativeError} when the cache does not store the field
   */
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

  /**
   * Waits for the device and copies whole pages, or groups of pages where the cache has groups: keys, values and statistics of all layers.
   * The bytes are opaque. A cache of the same build imports them if its shape differs only in its numbers of pages and sequences.
   *
   * @param pages physical pages, or the first page of each group
   * @param out `pages.length` times {@link CacheBytes.unit}
   */
  exportPages(pages: readonly number[], out: Uint8Array<ArrayBuffer>): void {
    const places = Int32Array.from(pages);
    const [count, bytes] = [BigInt(places.length), BigInt(out.length)];
    this.device.check(this.device.native.ps_cache_export(this.pointer, places, count, out, bytes));
  }

  /** Overwrites whole pages, or groups of pages, with what {@link exportPages} copied. */
  importPages(pages: readonly number[], source: Uint8Array<ArrayBuffer>): void {
    const places = Int32Array.from(pages);
    const [count, bytes] = [BigInt(places.length), BigInt(source.length)];
    this.device.check(this.device.native.ps_cache_import(this.pointer, places, count, source, bytes));
  }

  /** Work of the operations on this cache since it was created or {@link resetCounters} was called. Waits for the device. */
  counters(): Counters {
    const out = new Uint8Array(STRUCT_BYTES.ps_counters);
    this.device.check(this.device.native.ps_cache_counters(this.pointer, out));
    return readCounters(out);
  }

  /** Sets all counters to zero. */
  resetCounters(): void {
    this.device.check(this.device.native.ps_cache_reset_counters(this.pointer));
  }

  /** @internal */
  protected override release(pointer: Deno.PointerObject): void {
    this.device.native.ps_cache_close(pointer);
    this.device.forget(this);
  }
}
