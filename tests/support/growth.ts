const FACTOR = 4;
const RUNS = 3;

/** Of linear work: between 1 and 4, with room for what caches of the processor do to it. */
export const MOST_GROWTH = 2.5;

/**
 * How many times as long work takes per unit when there is four times as much of it: 1 if it is linear, 4 if it is quadratic. Times as much work
 * of either size, and takes the shortest of several runs, so that other work on the machine hardly counts.
 */
export function growth(work: (size: number) => void, size: number): number {
  let [inParts, atOnce] = [Infinity, Infinity];
  for (let run = 0; run < RUNS; run++) {
    inParts = Math.min(inParts, millisecondsOf(() => Array.from({ length: FACTOR }, () => work(size))));
    atOnce = Math.min(atOnce, millisecondsOf(() => work(FACTOR * size)));
  }
  return atOnce / inParts;
}

function millisecondsOf(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}
