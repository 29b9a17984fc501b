import { Status } from "./symbols.ts";

export { Status };

/** A native call that did not succeed, with the library's line of text. */
export class NativeError extends Error {
  override readonly name = "NativeError";

  constructor(readonly status: Status, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}
