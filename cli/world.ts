import type { ModelSource } from "./engine_port.ts";

/** A stream that text is read from. */
export interface Source {
  isTerminal(): boolean;
  /** Bytes read into the buffer, or null at the end. */
  read(buffer: Uint8Array<ArrayBuffer>): Promise<number | null>;
}

/** A stream that bytes are written to. */
export interface Sink {
  isTerminal(): boolean;
  /** Number of bytes written, which may be fewer than given. */
  writeSync(bytes: Uint8Array): number;
}

/**
 * How the terminal behind stdin passes keys on: `lines` that it edits and echoes itself, or every key at once without echo, with
 * Ctrl-C and Ctrl-Z as `signals` or as `keys`.
 */
export type KeyMode = "lines" | "signals" | "keys";

/** Signals that end a run early. */
export type EndSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

/** Everything that the program uses of the machine, so that tests can run it in-process with a fake. */
export interface World {
  readonly stdin: Source;
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly models: ModelSource;
  env(name: string): string | undefined;
  /** Width of the terminal behind stderr, in columns. */
  columns(): number;
  /** Calls the handler for every end signal until the result is disposed. */
  onEndSignal(handler: (signal: EndSignal) => void): Disposable;
  setKeyMode(mode: KeyMode): void;
  /** Stops the process until the shell continues it, as Ctrl-Z does. */
  suspend(): void;
  /** Ends the process at once as the signal would have. */
  dieBySignal(signal: EndSignal): void;
}
