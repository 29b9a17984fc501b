import type { Selection } from "../ffi/cache_options.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { PREFILL_TILE_TOKENS } from "./pages/page_policy.ts";

/** Consecutive tokens of one sequence in a chunk. */
export interface PromptRun {
  count: number;
  /** Position of the first token. */
  start: number;
  /** i32 `[M]` */
  pageTable: Tensor;
  /** Memory for what its tiles select, where they do. */
  selection: Selection | undefined;
}

/** Runs before and from about the `middle`th token on. The one that contains it is cut at a tile, or goes to the second half. */
export function halves(runs: readonly PromptRun[], middle: number): [first: PromptRun[], second: PromptRun[]] {
  const first: PromptRun[] = [];
  const second: PromptRun[] = [];
  let done = 0;
  for (const run of runs) {
    const wanted = middle - done;
    const tileEnd = Math.floor((run.start + wanted) / PREFILL_TILE_TOKENS) * PREFILL_TILE_TOKENS;
    const before = wanted >= run.count ? run.count : Math.max(0, tileEnd - run.start);
    if (before > 0) first.push(cutRun(run, 0, before));
    if (before < run.count) second.push(cutRun(run, before, run.count - before));
    done += run.count;
  }
  return [first, second];
}

function cutRun(run: PromptRun, from: number, count: number): PromptRun {
  const start = run.start + from;
  const tiles = Math.ceil((start + count) / PREFILL_TILE_TOKENS) - Math.floor(start / PREFILL_TILE_TOKENS);
  const { selected, counts } = run.selection ?? {};
  const selection = selected && counts && { selected: selected.rows(0, tiles), counts: counts.rows(0, tiles) };
  return { ...run, start, count, selection };
}
