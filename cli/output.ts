import { escapeControls, oneLine } from "../engine/text/escape.ts";
import type { Notice } from "../engine/types.ts";
import { dim, plain, red, type Style, takesColor, yellow } from "./paint.ts";
import type { Sink, World } from "./world.ts";

/** How much is shown besides the answer. */
export interface Display {
  quiet: boolean;
  verbose: boolean;
  color: "auto" | "on" | "off";
}

/** stdout could not be written. */
export class OutputError extends Error {
  override readonly name = "OutputError";

  /** `closed`: the reader closed the stream early, as `head` does, which is not a failure. */
  constructor(readonly closed: boolean, options: ErrorOptions) {
    super(`Cannot write the output: ${(options.cause as Error).message}`, options);
  }
}

const CLEAR_LINE = "\r\x1b[K";
const RETRY_MS = 5;

/** The only writer of the program: results go to stdout, everything else to stderr. */
export class Output {
  /** stderr accepts colour codes. */
  readonly #colored: boolean;
  /** stderr accepts a line that is rewritten in place. */
  readonly #showsProgress: boolean;
  readonly #showsStats: boolean;
  readonly #showsStages: boolean;
  readonly #verbose: boolean;
  readonly #world: World;
  readonly #quiet: boolean;
  readonly #escapes: boolean;
  /** Whether the answer's last line is open; undefined before there is any text. */
  #lineOpen: boolean | undefined;
  #hasStatus = false;

  constructor(world: World, display: Display = { quiet: false, verbose: false, color: "auto" }) {
    const terminal = world.stderr.isTerminal();
    this.#world = world;
    this.#quiet = display.quiet;
    this.#verbose = display.verbose;
    this.#escapes = world.stdout.isTerminal();
    this.#colored = takesColor(world, world.stderr, display.color);
    this.#showsProgress = terminal && this.#colored && world.env("TERM") !== "dumb" && !display.quiet;
    this.#showsStats = (terminal || display.verbose) && !display.quiet;
    this.#showsStages = display.verbose && !display.quiet && !this.#showsProgress;
  }

  /** Writes a part of the answer to stdout; on a terminal its control characters are made visible. */
  answer(text: string): void {
    if (text === "") return;
    this.clearStatus();
    this.#lineOpen = !text.endsWith("\n");
    writeAll(this.#world.stdout, this.#escapes ? escapeControls(text) : text);
  }

  /** Ends the answer with a newline unless it has one. */
  endAnswer(): void {
    if (this.#lineOpen !== false) this.answer("\n");
  }

  /** Writes a whole result, such as JSON or help, to stdout as it is. */
  result(text: string): void {
    this.clearStatus();
    writeAll(this.#world.stdout, text);
  }

  /** Answers a command of a conversation on stderr, since stdout carries the answers of the model. */
  reply(text: string): void {
    this.#write(text);
  }

  /** Draws on the terminal behind stderr what the line editor says, control sequences included. */
  draw(sequence: string): void {
    writeBestEffort(this.#world.stderr, sequence);
  }

  /** Prints why the run failed, on a line of its own even if an answer has begun. */
  error(message: string): void {
    if (this.#lineOpen) writeBestEffort(this.#world.stdout, "\n");
    this.#message("Error: ", red, message);
  }

  /** Writes the stack of an internal error, under `--verbose`. */
  trace(error: Error): void {
    if (this.#verbose) this.#write(escapeControls(`${error.stack}\n`));
  }

  warn(message: string): void {
    if (!this.#quiet) this.#message("Warning: ", yellow, message);
  }

  /** Prints an engine's notices about its model and device; those that need no action only under `--verbose`. */
  notices(notices: readonly Notice[]): void {
    for (const { level, text } of notices) {
      if (level === "warning") this.warn(text);
      else if (this.#verbose) this.note(text);
    }
  }

  /** Prints something that the user should know but need not act on. */
  note(message: string): void {
    if (!this.#quiet) this.#message("", plain, message);
  }

  /** Prints a stage of the run under `--verbose`, unless the progress line shows it. */
  stage(message: string): void {
    if (this.#showsStages) this.#message("", plain, message);
  }

  /** Writes lines of stats, each with its label. */
  stats(lines: readonly (readonly [label: string, text: string])[]): void {
    if (!this.#showsStats) return;
    const style = this.#colored ? dim : plain;
    this.#write(lines.map(([label, text]) => `${style(label.padEnd(9))}${oneLine(text)}\n`).join(""));
  }

  /** Shows a line that the next one replaces. */
  status(text: string): void {
    if (!this.#showsProgress) return;
    this.#hasStatus = true;
    writeBestEffort(this.#world.stderr, CLEAR_LINE + oneLine(text).slice(0, this.#world.columns() - 1));
  }

  clearStatus(): void {
    if (!this.#hasStatus) return;
    this.#hasStatus = false;
    writeBestEffort(this.#world.stderr, CLEAR_LINE);
  }

  #message(prefix: string, style: Style, message: string): void {
    this.#write(`${this.#colored ? style(prefix) : prefix}${oneLine(message)}\n`);
  }

  #write(text: string): void {
    this.clearStatus();
    writeBestEffort(this.#world.stderr, text);
  }
}

/** Messages are best effort: a closed stderr must not end a run whose answer is still being read. */
function writeBestEffort(sink: Sink, text: string): void {
  try {
    writeAll(sink, text);
  } catch (error) {
    if (!(error instanceof OutputError)) throw error;
  }
}

function writeAll(sink: Sink, text: string): void {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) rest = rest.subarray(writeSome(sink, rest));
}

/** Number of bytes written; 0 if the stream is full, which happens on pipes that another program set to non-blocking. */
function writeSome(sink: Sink, bytes: Uint8Array): number {
  try {
    return sink.writeSync(bytes);
  } catch (error) {
    if (!(error instanceof Deno.errors.WouldBlock)) {
      const closed = error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset;
      throw new OutputError(closed, { cause: error });
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    return 0;
  }
}
