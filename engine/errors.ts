/**
 * What kind of failure a {@link PagesiftError} reports. The command line maps each kind to an exit code:
 *
 * - `usage` (2): an option or argument that cannot be used
 * - `model` (3): a model folder or one of its files is invalid
 * - `context` (4): the prompt is longer than the context
 * - `device` (5): no usable device or native library
 * - `memory` (6): not enough memory
 * - `network` (7): a download or the model cache failed
 * - `numeric` (8): the model computed logits that are not finite
 */
export type ErrorKind =
  | "usage"
  | "model"
  | "context"
  | "device"
  | "memory"
  | "network"
  | "numeric";

/** An error that a user can act on. The message is one line that says what happened, where, and what to do. */
export class PagesiftError extends Error {
  /** Always "PagesiftError". */
  override readonly name = "PagesiftError";

  /** An error of a kind, with a one-line message. */
  constructor(
    /** What kind of failure it is. */
    readonly kind: ErrorKind,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The message of anything thrown. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error instanceof Deno.errors.NotCapable) || !error.message.startsWith("Requires all access")) {
    return error.message;
  }
  return "Deno opens files under /dev, /proc and /sys only for programs with all permissions; copy it to another folder";
}
