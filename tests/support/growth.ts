import { AssertionError } from "@std/assert";

const FACTOR = 4;
/** Of time per unit, when there is four times as much work. Between 1 and 4, with room for what caches of the processor do to linear work. */
const MOST_GROWTH = 2.5;
const LEAST_RUNS = 3;
const MOST_RUNS = 30;

/**
 * Asserts that work takes about as long per unit when there is four times as much of it: linear work does, quadratic work takes 4 times as long.
 * Times as much work of either size. The shortest of several runs count, and more run while the ratio is too high, so that other work on the
 * machine does not fail the test.
 */
export function assertLinear(work: (size: number) => void, size: number): void {
  let [inParts, atOnce] = [Infinity, Infinity];
  for (let run = 1; run <= MOST_RUNS; run++) {
    inParts = Math.min(inParts, millisecondsOf(() => Array.from({ length: FACTOR }, () => work(size))));
    atOnce = Math.min(atOnce, millisecondsOf(() => work(FACTOR * size)));
    if (run >= LEAST_RUNS && atOnce < MOST_GROWTH * inParts) return;
  }
  throw new AssertionError(`Took ${atOnce} ms at once and ${inParts} ms in ${FACTOR} parts`);
}

function millisecondsOf(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}
