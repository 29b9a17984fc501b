/** Whether an arm did what its name says, by the counters of the kernels. */
import type { Counters } from "../ffi/structs.ts";

/** What was run: calls that do or do not select pages, and the rows (sequence, KV head) of each call. */
export interface Activity {
  arm: string;
  calls: number;
  rows: number;
  /** Pages that a row of a selecting call must read, fewer than it has; undefined if it reads all pages. */
  chosenPages: number | undefined;
}

/** @throws {Error} if a sparse arm read all pages in some call, or a dense arm selected pages in any */
export function checkActivity({ arm, calls, rows, chosenPages }: Activity, counted: Counters): void {
  checkSelections(arm, chosenPages === undefined ? 0 : calls, counted);
  const expected = chosenPages === undefined ? counted.pagesInContext : calls * rows * chosenPages;
  if (counted.pagesAttended === expected && expected > 0) return;
  throw new Error(`The ${arm} arm read ${counted.pagesAttended} pages in ${calls} calls, expected ${expected}`);
}

/** @throws {Error} if the kernels selected more or less often than the arm claims */
export function checkSelections(arm: string, expected: number, { selections }: Counters): void {
  if (selections === expected) return;
  throw new Error(
    `The ${arm} arm selected pages ${selections} times, expected ${expected}, so its row would not measure ${arm} attention`,
  );
}
