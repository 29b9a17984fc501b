import { setImmediate } from "node:timers";

/** Milliseconds between pauses for the event loop, which signals and progress require. */
const INTERVAL_MS = 20;
/**
 * Turns of the event loop in a pause, 0.1 ms in all. Deno looks for signals and input every 31 turns; a timer of 0 ms lets it look at once, but
 * takes 2 ms, a tenth of the time of a generation.
 */
const TURNS = 64;

/** The error of long work whose signal is aborted. */
export class Aborted extends Error {
  override readonly name = "Aborted";
}

/** Lets the event loop run if its turn is due. @throws {Aborted} */
export type EventLoopYield = () => Promise<void>;

/** A function to await between pieces of work: it lets the event loop run every {@link INTERVAL_MS}, and throws once aborted. */
export function eventLoopYield(signal?: AbortSignal): EventLoopYield {
  let last = performance.now();
  return async () => {
    if (signal?.aborted) throw new Aborted();
    if (performance.now() - last < INTERVAL_MS) return;
    for (let turn = 0; turn < TURNS; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
    last = performance.now();
    if (signal?.aborted) throw new Aborted();
  };
}
