/** Allocates the physical pages of a KV pool in groups of consecutive pages, low ones first, so that a single sequence is contiguous. */
export class PageAllocator {
  /** First pages of the free groups. */
  readonly #free: number[];
  #peak = 0;

  /**
   * @param numPages pages in the pool
   * @param groupPages pages that are handed out together, a divisor of `numPages`
   */
  constructor(readonly numPages: number, readonly groupPages = 1) {
    const numGroups = numPages / groupPages;
    if (!Number.isInteger(numGroups)) throw new RangeError(`${numPages} pages do not make groups of ${groupPages}`);
    this.#free = Array.from({ length: numGroups }, (_, index) => (numGroups - 1 - index) * groupPages);
  }

  /** Pages in free groups. */
  get numFree(): number {
    return this.#free.length * this.groupPages;
  }

  get numUsed(): number {
    return this.numPages - this.numFree;
  }

  /** The largest number of pages that were in use at the same time. */
  get peakUsed(): number {
    return this.#peak;
  }

  /** Takes a group and returns its first page. @throws {RangeError} when none is free */
  allocate(): number {
    const page = this.#free.pop();
    if (page === undefined) throw new RangeError(`No free page: all ${this.numPages} pages of the KV pool are in use`);
    this.#peak = Math.max(this.#peak, this.numUsed);
    return page;
  }

  /** Takes groups back, each named by its first page, to be handed out again in their present order. */
  free(firstPages: readonly number[]): void {
    for (let index = firstPages.length - 1; index >= 0; index--) {
      const page = firstPages[index];
      if (page !== undefined) this.#free.push(page);
    }
  }

  /** Starts a new measurement of {@link peakUsed}. */
  resetPeak(): void {
    this.#peak = this.numUsed;
  }
}

/** Pages for this many tokens. */
export function pagesFor(tokens: number, pageSize: number): number {
  return Math.ceil(tokens / pageSize);
}

/** Pages that a sequence of this many tokens allocates. */
export function pagesTaken(tokens: number, pageSize: number, groupPages: number): number {
  return Math.ceil(pagesFor(tokens, pageSize) / groupPages) * groupPages;
}
