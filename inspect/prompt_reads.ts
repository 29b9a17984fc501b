import type { Selection } from "../ffi/cache_options.ts";

/** Counts how often the tiles of a prompt choose each page, over tiles, layers and KV heads. A tile's own pages do not count. */
export class PromptReads {
  readonly #reads: number[] = [];

  /** Adds what the tiles of a chunk chose in a layer. */
  add({ selected, counts }: Selection): void {
    const k = selected.shape[2] ?? 0;
    const pages = selected.readInts();
    counts.readInts().forEach((count, row) => {
      for (const page of pages.subarray(row * k, row * k + count)) this.#reads[page] = (this.#reads[page] ?? 0) + 1;
    });
  }

  /** `[P]`; undefined if no tile chose anything. */
  byPage(pages: number): number[] | undefined {
    if (this.#reads.length === 0) return undefined;
    return Array.from({ length: pages }, (_, page) => this.#reads[page] ?? 0);
  }
}
