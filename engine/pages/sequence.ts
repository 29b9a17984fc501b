import { type PageAllocator, pagesFor } from "./page_table.ts";

/** Work that a truncation leaves for the device. */
export interface TailWork {
  /** The statistics of this page are to be computed over its first `numTokens` tokens. */
  tail?: { page: number; numTokens: number };
  /** First page of a shared group that the sequence no longer uses, and of the own one that its pages are to be copied to. */
  copy?: { from: number; to: number };
}

/** One sequence in the KV pool: its number of tokens and its physical pages. */
export class Sequence {
  #length = 0;
  #epoch = 0;
  readonly #pages: number[] = [];

  constructor(readonly allocator: PageAllocator, readonly pageSize: number) {}

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /** Number of truncations. Pages noted before a truncation may no longer belong to the sequence. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Physical pages in logical order. */
  get pages(): readonly number[] {
    return this.#pages;
  }

  /**
   * Makes room for the next `numTokens` tokens and returns their slots (physical page * page size + place).
   *
   * @throws {RangeError} when the pool is full; the sequence is then unchanged
   */
  extend(numTokens: number): Int32Array<ArrayBuffer> {
    const wanted = pagesFor(this.#length + numTokens, this.pageSize);
    const missing = wanted - this.#roomPages;
    if (missing > this.allocator.numFree) {
      throw new RangeError(`${missing} pages needed, ${this.allocator.numFree} of ${this.allocator.numPages} free`);
    }
    while (this.#pages.length < wanted) this.#pages.push(this.#nextPage());
    const slots = new Int32Array(numTokens);
    for (let index = 0; index < numTokens; index++) slots[index] = this.#slot(this.#length + index);
    this.#length += numTokens;
    return slots;
  }

  /** Whether the next token requires another page, or group of pages, from the pool. */
  get needsPage(): boolean {
    return pagesFor(this.#length + 1, this.pageSize) > this.#roomPages;
  }

  /** Begins an empty sequence with the `length` tokens of whole groups that somebody else holds too. */
  adopt(pages: readonly number[], length: number): void {
    if (this.#length > 0) throw new RangeError(`A sequence of ${this.#length} tokens cannot begin with other pages`);
    this.allocator.share(pages.filter((_, index) => index % this.allocator.groupPages === 0));
    this.#pages.push(...pages);
    this.#length = length;
  }

  /**
   * Removes all tokens from `length` on and frees their pages. If the last group is shared and has room for more tokens, the sequence
   * takes a group of its own in its place.
   *
   * @throws {RangeError} when it needs a group and none is free
   */
  truncate(length: number): TailWork {
    if (length < 0 || length > this.#length) {
      throw new RangeError(`Cannot truncate a sequence of ${this.#length} tokens to ${length}`);
    }
    this.#length = length;
    this.#epoch++;
    const remaining = pagesFor(length, this.pageSize);
    const dropped = this.#pages.splice(remaining);
    this.allocator.free(dropped.filter((_, index) => (remaining + index) % this.allocator.groupPages === 0));
    const copy = this.#ownLastGroup();
    const numTokens = length % this.pageSize;
    const page = this.#pages.at(-1);
    return { ...copy && { copy }, ...numTokens > 0 && page !== undefined && { tail: { page, numTokens } } };
  }

  /** Gives all pages back. */
  release(): void {
    this.truncate(0);
  }

  /** Replaces the last group if it is shared and the next tokens would be written to it. */
  #ownLastGroup(): TailWork["copy"] {
    const { groupPages } = this.allocator;
    const groupTokens = groupPages * this.pageSize;
    const first = Math.floor(this.#length / groupTokens) * groupPages;
    const from = this.#pages[first];
    if (from === undefined || !this.allocator.isShared(from)) return undefined;
    const to = this.allocator.allocate();
    this.allocator.free([from]);
    for (let index = first; index < this.#pages.length; index++) this.#pages[index] = to + index - first;
    return { from, to };
  }

  /** Pages in the groups that the sequence has. */
  get #roomPages(): number {
    const { groupPages } = this.allocator;
    return Math.ceil(this.#pages.length / groupPages) * groupPages;
  }

  /** The next page of the last group, or the first of a new one. */
  #nextPage(): number {
    const inGroup = this.#pages.length % this.allocator.groupPages;
    return inGroup === 0 ? this.allocator.allocate() : (this.#pages.at(-1) ?? 0) + 1;
  }

  #slot(position: number): number {
    const page = this.#pages[Math.floor(position / this.pageSize)] ?? 0;
    return page * this.pageSize + position % this.pageSize;
  }
}
