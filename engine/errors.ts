/** What kind of failure a {@link PagesiftError} reports; the command line maps each to an exit code. */
export type ErrorKind =
  | "usage"
  | "model"
  | "context"
  | "device"
  | "memory"
  | "network"
  | "numeric";

/** An error whose message a user can act on: one line that says what happened, where, and what to do. */
export class PagesiftError extends Error {
  override readonly name = "PagesiftError";

  constructor(readonly kind: ErrorKind, message: string, options?: ErrorOptions) {
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
