/** Milliseconds between turns of the event loop, which signals and progress require. */
const INTERVAL_MS = 20;

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
    await new Promise((resolve) => setTimeout(resolve, 0));
    last = performance.now();
    if (signal?.aborted) throw new Aborted();
  };
}
