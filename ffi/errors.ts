import { Status } from "./symbols.ts";

export { Status };

/**
 * A native call that failed. The message is the library's: one line that says what happened. {@link Engine} throws it as a
 * {@link PagesiftError}; only the calls on a {@link Device} and its objects throw it directly.
 */
export class NativeError extends Error {
  /** Always "NativeError". */
  override readonly name = "NativeError";

  /** An error with the status that the call returned. */
  constructor(
    /** What kind of failure it is. */
    readonly status: Status,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
