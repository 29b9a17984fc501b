/**
 * Allocates the physical pages of a KV pool in groups of consecutive pages, low ones first, so that a single sequence is contiguous. A group
 * belongs to everyone who holds a reference to it. One that only a {@link Retainer} holds counts as free, since the retainer gives it up
 * when the pool needs it.
 */
export class PageAllocator {
  /** First pages of the groups that nobody holds. */
  readonly #free: number[];
  /** By group. */
  readonly #references: Uint32Array;
  /** 1 for a group that the retainer holds. */
  readonly #retained: Uint8Array;
  /** Groups that only the retainer holds. */
  #numIdle = 0;
  #peak = 0;
  retainer: Retainer | undefined;

  /**
   * @param numPages pages in the pool
   * @param groupPages pages that are handed out together, a divisor of `numPages`
   */
  constructor(readonly numPages: number, readonly groupPages = 1) {
    const numGroups = numPages / groupPages;
    if (!Number.isInteger(numGroups)) throw new RangeError(`${numPages} pages do not make groups of ${groupPages}`);
    this.#free = Array.from({ length: numGroups }, (_, index) => (numGroups - 1 - index) * groupPages);
    this.#references = new Uint32Array(numGroups);
    this.#retained = new Uint8Array(numGroups);
  }

  /** Pages in groups that can be allocated. */
  get numFree(): number {
    return (this.#free.length + this.#numIdle) * this.groupPages;
  }

  /** Pages in groups that sequences hold; shared ones count once. */
  get numUsed(): number {
    return this.numPages - this.numFree;
  }

  /** The largest number of pages that were in use at the same time. */
  get peakUsed(): number {
    return this.#peak;
  }

  /** Takes a group and returns its first page. @throws {RangeError} when none is free */
  allocate(): number {
    if (this.#free.length === 0 && this.#numIdle > 0) this.retainer?.giveUpOne();
    const page = this.#free.pop();
    if (page === undefined) throw new RangeError(`No free page: all ${this.numPages} pages of the KV pool are in use`);
    this.#references[page / this.groupPages] = 1;
    this.#peak = Math.max(this.#peak, this.numUsed);
    return page;
  }

  /** Adds a reference to each of these groups, named by their first pages. */
  share(firstPages: readonly number[]): void {
    for (const page of firstPages) this.#count(page, 1);
    this.#peak = Math.max(this.#peak, this.numUsed);
  }

  /** Drops a reference to each of these groups. Those without any are handed out again in their present order. */
  free(firstPages: readonly number[]): void {
    for (let index = firstPages.length - 1; index >= 0; index--) {
      const page = firstPages[index];
      if (page !== undefined && this.#count(page, -1) === 0) this.#free.push(page);
    }
  }

  /** Adds the retainer's reference to a group that a sequence holds. */
  retain(page: number): void {
    this.#count(page, 1);
    this.#retained[page / this.groupPages] = 1;
  }

  /** Drops the retainer's reference to a group that nobody else holds. */
  giveUp(page: number): void {
    this.#retained[page / this.groupPages] = 0;
    this.#numIdle--;
    this.free([page]);
  }

  /** Whether more than one holder has the group that begins with this page, so that none may write to it. */
  isShared(page: number): boolean {
    return (this.#references[page / this.groupPages] ?? 0) > 1;
  }

  /** Whether only the retainer holds the group. */
  isIdle(page: number): boolean {
    const group = page / this.groupPages;
    return this.#retained[group] === 1 && this.#references[group] === 1;
  }

  /** Starts a new measurement of {@link peakUsed}. */
  resetPeak(): void {
    this.#peak = this.numUsed;
  }

  /** Changes the references to a group by one and returns how many there are. */
  #count(page: number, change: 1 | -1): number {
    const group = page / this.groupPages;
    const before = Number(this.isIdle(page));
    const references = this.#references[group] = (this.#references[group] ?? 0) + change;
    this.#numIdle += Number(this.isIdle(page)) - before;
    return references;
  }
}

/** Holds groups of pages for later sequences until the pool needs them. */
export interface Retainer {
  /** Gives up a group that only the retainer holds. */
  giveUpOne(): void;
}

/** Pages for this many tokens. */
export function pagesFor(tokens: number, pageSize: number): number {
  return Math.ceil(tokens / pageSize);
}

/** Pages that a sequence of this many tokens allocates. */
export function pagesTaken(tokens: number, pageSize: number, groupPages: number): number {
  return Math.ceil(pagesFor(tokens, pageSize) / groupPages) * groupPages;
}
