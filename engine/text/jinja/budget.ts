import { TemplateError } from "./errors.ts";

/** What one rendering may cost. */
export interface TemplateLimits {
  /** Characters and list entries that the template may make in all, beside {@link maxMilliseconds} of time. */
  maxCharacters: number;
  maxMilliseconds: number;
}

/** Room for any real template: they take milliseconds and add a few kilobytes. */
export const DEFAULT_TEMPLATE_LIMITS: TemplateLimits = { maxCharacters: 64 << 20, maxMilliseconds: 5000 };

/** How often the clock is read. */
const STEPS_PER_LOOK = 64;

/** Counts what a rendering makes and how long it runs. Everything that makes text or lists asks here first. */
export class Budget {
  readonly #deadline: number;
  readonly #limits: TemplateLimits;
  #left: number;
  #steps = 0;

  /** @param inputLength characters of the messages, of which a template makes several copies */
  constructor(limits: TemplateLimits, inputLength: number) {
    this.#limits = limits;
    this.#left = limits.maxCharacters + 64 * inputLength;
    this.#deadline = performance.now() + limits.maxMilliseconds;
  }

  /** One node more. @throws {TemplateError} once the time is up */
  step(): void {
    if (++this.#steps % STEPS_PER_LOOK === 0 && performance.now() > this.#deadline) {
      throw new TemplateError(`it runs for more than ${this.#limits.maxMilliseconds} ms`);
    }
  }

  /** So many characters or entries more. @throws {TemplateError} once the limit is exceeded */
  spend(count: number): void {
    this.step();
    this.#left -= count;
    if (!(this.#left >= 0)) throw new TemplateError("it builds more text than any real template does");
  }

  text(text: string): string {
    this.spend(text.length);
    return text;
  }
}

let running: Budget | undefined;

/** Runs a rendering, whose budget {@link charge} then is about. Renderings are synchronous, so there is one at a time. */
export function withBudget<T>(budget: Budget, work: () => T): T {
  const outer = running;
  running = budget;
  try {
    return work();
  } finally {
    running = outer;
  }
}

/** Charges the rendering that runs for work on a value, whose parts may be shared and so be far more than were made. */
export function charge(count = 1): void {
  running?.spend(count);
}
