import { type Context, createContext, runInContext } from "node:vm";

/** What a call throws that took longer than it may. */
export class TimeLimitError extends Error {
  constructor(seconds: number) {
    super(`it took longer than ${Math.round(seconds)} s`);
  }
}

let shared: (Context & { work?: () => unknown }) | undefined;

/**
 * The result of `work`, which is ended by a {@link TimeLimitError} after `seconds`. Only V8 can end a regular expression that goes on
 * for ever, and it does so for scripts of `node:vm`; `work` is the host's own function, and the script does no more than call it.
 * What `work` was changing may be half changed then. Takes 15 us, and does not nest.
 */
export function withTimeLimit<T>(seconds: number, work: () => T): T {
  const context = shared ??= createContext({});
  context.work = work;
  try {
    return runInContext("work()", context, { timeout: Math.ceil(seconds * 1000) }) as T;
  } catch (error) {
    // An error of the other realm, so no instance of this one's Error.
    const code = (error as { code?: unknown } | undefined)?.code;
    throw code === "ERR_SCRIPT_EXECUTION_TIMEOUT" ? new TimeLimitError(seconds) : error;
  } finally {
    delete context.work;
  }
}
