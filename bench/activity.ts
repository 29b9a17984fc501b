/** Whether an arm did what its name says, by the counters of the kernels. */
import type { Counters } from "../ffi/structs.ts";

/** What was run: calls that each choose pages or not, and rows (sequence, KV head) of each. */
export interface Activity {
  arm: string;
  calls: number;
  rows: number;
  /** Pages that a row of a selecting call must read, fewer than it has; undefined for one that reads all. */
  chosenPages: number | undefined;
}

/** @throws {Error} when a sparse arm did not leave pages out in every call, or a dense one did in any */
export function checkActivity({ arm, calls, rows, chosenPages }: Activity, counted: Counters): void {
  checkSelections(arm, chosenPages === undefined ? 0 : calls, counted);
  const wanted = chosenPages === undefined ? counted.pagesInContext : calls * rows * chosenPages;
  if (counted.pagesAttended === wanted && wanted > 0) return;
  throw new Error(`The ${arm} arm read ${counted.pagesAttended} pages in ${calls} calls, wanted ${wanted}`);
}

/** @throws {Error} when the kernels selected more or less often than the arm claims */
export function checkSelections(arm: string, wanted: number, { selections }: Counters): void {
  if (selections === wanted) return;
  throw new Error(
    `The ${arm} arm selected pages ${selections} times, wanted ${wanted}: its row would not be about ${arm} attention`,
  );
}
