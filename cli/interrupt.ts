import type { EndSignal, World } from "./world.ts";

/**
 * Turns the first end signal into an abort, so that a run can print its results so far; the second ends the process at once.
 */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #world: World;
  #listener: Disposable;
  #received: EndSignal | undefined;
  #scope: AbortController | undefined;

  constructor(world: World) {
    this.#world = world;
    this.#listener = this.#listen();
  }

  #listen(): Disposable {
    return this.#world.onEndSignal((signal) => {
      if (signal === "SIGINT" && this.#scope?.signal.aborted === false) return this.#scope.abort();
      if (this.#received !== undefined) {
        this.#listener[Symbol.dispose]();
        this.#world.dieBySignal(signal);
      }
      this.#received = signal;
      this.#controller.abort();
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The signal that ended the run, if one did. */
  get received(): EndSignal | undefined {
    return this.#received;
  }

  /**
   * A part of the run that Ctrl-C ends without ending the run, until the result is disposed. A second Ctrl-C, or another signal, ends
   * the run.
   */
  scope(): Disposable & { readonly signal: AbortSignal } {
    const scope = this.#scope = new AbortController();
    return {
      signal: AbortSignal.any([this.signal, scope.signal]),
      [Symbol.dispose]: () => this.#scope = undefined,
    };
  }

  /** Waits for work that cannot be cancelled, and abandons it when a signal arrives. */
  async race<T>(work: Promise<T>): Promise<T> {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(this.signal.reason);
    this.signal.addEventListener("abort", onAbort);
    try {
      this.signal.throwIfAborted();
      return await Promise.race([work, aborted]);
    } finally {
      this.signal.removeEventListener("abort", onAbort);
    }
  }

  /**
   * Runs work that blocks the event loop for seconds, such as tokenizing a book. A listener would not be called in the meantime, so
   * none is installed: a signal ends the process at once, which loses nothing while nothing has been printed.
   */
  blocking<T>(work: () => T): T {
    this.signal.throwIfAborted();
    this.#listener[Symbol.dispose]();
    try {
      return work();
    } finally {
      this.#listener = this.#listen();
    }
  }

  [Symbol.dispose](): void {
    this.#listener[Symbol.dispose]();
  }
}
