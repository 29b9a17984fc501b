import { PagesiftError } from "../errors.ts";

/** Aborts a request when the caller does, or when nothing arrived for some seconds. Dispose it when the request is over. */
export class StallGuard implements Disposable {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #seconds: number;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(seconds: number, outer?: AbortSignal) {
    this.#seconds = seconds;
    this.signal = outer ? AbortSignal.any([outer, this.#controller.signal]) : this.#controller.signal;
    this.touch();
  }

  /** Starts the wait anew; called when something arrives. */
  touch(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(this.#stalled()), this.#seconds * 1000);
  }

  throwIfAborted(): void {
    this.signal.throwIfAborted();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #stalled(): PagesiftError {
    const problem = `Nothing arrived from the network for ${this.#seconds} s`;
    return new PagesiftError("network", `${problem}; run the command again to go on`);
  }
}
