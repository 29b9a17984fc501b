import type { Request } from "./request.ts";

/** Requests that are taken from an arriving source before any of them can start. */
const MAX_WAITING = 16;

/** The requests of a run in their order: all of them from the start, or as they arrive. */
export class RequestQueue implements Disposable {
  readonly #waiting: Request[] = [];
  readonly #arriving: AsyncIterator<Request> | undefined;
  #ended = false;
  #failure: { error: unknown } | undefined;
  /** Wakes the run that waits for a request, and the source that waits for room. */
  #wakeRun: () => void = () => {};
  #wakeSource: () => void = () => {};

  constructor(requests: readonly Request[] | AsyncIterable<Request>) {
    if (Symbol.asyncIterator in requests) {
      this.#arriving = requests[Symbol.asyncIterator]();
      this.#pull(this.#arriving);
    } else {
      this.#waiting.push(...requests);
      this.#ended = true;
    }
  }

  /** Whether requests may arrive while others run. */
  get arrives(): boolean {
    return this.#arriving !== undefined;
  }

  /** Up to `count` next requests, of those that have arrived. */
  ahead(count: number): Request[] {
    return this.#waiting.slice(0, count);
  }

  /** Takes the next request off the queue. */
  shift(): Request | undefined {
    const [request] = this.#waiting;
    if (request) this.take(request);
    return request;
  }

  /** Takes a waiting request off the queue. */
  take(request: Request): void {
    this.#waiting.splice(this.#waiting.indexOf(request), 1);
    this.#wakeSource();
  }

  /** Waits for a request, the end or the abort of the signal. False at the end. @throws what the source threw, after its requests */
  async wait(signal?: AbortSignal): Promise<boolean> {
    if (this.#waiting.length === 0 && !this.#ended && !signal?.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeRun = resolve;
      signal?.addEventListener("abort", this.#wakeRun);
      await promise;
      signal?.removeEventListener("abort", this.#wakeRun);
    }
    if (this.#waiting.length > 0) return true;
    if (this.#failure) throw this.#failure.error;
    return !this.#ended;
  }

  async #pull(source: AsyncIterator<Request>): Promise<void> {
    try {
      for (let one = await source.next(); !one.done && !this.#ended; one = await source.next()) {
        this.#waiting.push(one.value);
        this.#wakeRun();
        if (this.#waiting.length >= MAX_WAITING) await new Promise<void>((resolve) => this.#wakeSource = resolve);
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#ended = true;
    this.#wakeRun();
  }

  /** Takes no more from the source. */
  [Symbol.dispose](): void {
    this.#ended = true;
    this.#wakeSource();
    // A source that waits for input returns later or never.
    this.#arriving?.return?.().catch(() => {});
  }
}

/** Converts what arrives. Unlike a generator, it passes `return` on at once, while its source waits. */
export function mapArriving<From, To>(
  source: AsyncIterable<From>,
  convert: (one: From, index: number) => To,
): AsyncIterable<To> {
  const iterator = source[Symbol.asyncIterator]();
  let index = 0;
  const next = async (): Promise<IteratorResult<To, undefined>> => {
    const one = await iterator.next();
    return one.done ? { done: true, value: undefined } : { done: false, value: convert(one.value, index++) };
  };
  const end = async (): Promise<IteratorResult<To, undefined>> => {
    await iterator.return?.();
    return { done: true, value: undefined };
  };
  return { [Symbol.asyncIterator]: () => ({ next, return: end }) };
}
