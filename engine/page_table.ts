/** Hands out the physical pages of a KV pool. Low pages first, so that a lone sequence lies in one piece. */
export class PageAllocator {
  readonly #free: number[];
  #peak = 0;

  /** @param numPages pages in the pool */
  constructor(readonly numPages: number) {
    this.#free = Array.from({ length: numPages }, (_, index) => numPages - 1 - index);
  }

  get numFree(): number {
    return this.#free.length;
  }

  get numUsed(): number {
    return this.numPages - this.#free.length;
  }

  /** The most pages that were in use at once. */
  get peakUsed(): number {
    return this.#peak;
  }

  /** @throws {RangeError} when no page is free */
  allocate(): number {
    const page = this.#free.pop();
    if (page === undefined) throw new RangeError(`No free page: all ${this.numPages} pages of the KV pool are in use`);
    this.#peak = Math.max(this.#peak, this.numUsed);
    return page;
  }

  /** Takes pages back, to be handed out again in their present order. */
  free(pages: readonly number[]): void {
    for (let index = pages.length - 1; index >= 0; index--) {
      const page = pages[index];
      if (page !== undefined) this.#free.push(page);
    }
  }

  /** Starts a new measurement of {@link peakUsed}. */
  resetPeak(): void {
    this.#peak = this.numUsed;
  }
}

/** Pages that hold this many tokens. */
export function pagesFor(tokens: number, pageSize: number): number {
  return Math.ceil(tokens / pageSize);
}
