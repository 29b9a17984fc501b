import { PagesiftError } from "../errors.ts";

/** Text that may go out, and whether a stop string ended it. */
export interface StopResult {
  text: string;
  stopped: boolean;
}

/**
 * Finds stop strings in text that arrives in pieces. It only holds back text that could be the start of one. The stop string
 * that is complete first wins, of several that end together the longest; so the cut does not depend on the pieces.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = "";
  #stopped = false;

  /** Throws a "usage" error for an empty stop string, which would match everywhere. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) {
      throw new PagesiftError("usage", `Invalid stop string "": expected at least one character`);
    }
    this.#stops = [...stops];
    this.#longest = Math.max(0, ...stops.map((stop) => stop.length));
  }

  /** Takes the next piece; once stopped, further text is dropped. */
  push(text: string): StopResult {
    if (this.#stopped) return { text: "", stopped: true };
    const pending = this.#held + text;
    const cut = this.#firstStop(pending);
    this.#stopped = cut !== undefined;
    const end = cut ?? pending.length - this.#openLength(pending);
    this.#held = this.#stopped ? "" : pending.slice(end);
    return { text: pending.slice(0, end), stopped: this.#stopped };
  }

  /** The text that is still held back, for a generation that ends without a stop string. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Where the stop string that completes first begins. */
  #firstStop(text: string): number | undefined {
    let firstEnd = Infinity;
    let start: number | undefined;
    for (const stop of this.#stops) {
      const index = text.indexOf(stop);
      const end = index + stop.length;
      if (index === -1 || end > firstEnd || (end === firstEnd && index > start!)) continue;
      [firstEnd, start] = [end, index];
    }
    return start;
  }

  /** Length of the longest suffix of `text` that begins some stop string. */
  #openLength(text: string): number {
    for (let length = Math.min(this.#longest - 1, text.length); length > 0; length--) {
      const suffix = text.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(suffix))) return length;
    }
    return 0;
  }
}
