import { createInterface, type Interface } from "node:readline";
import { PassThrough, Writable } from "node:stream";
import type { CommandRun } from "../command_run.ts";
import type { KeyMode } from "../world.ts";
import { type History, HISTORY_LINES } from "./history.ts";
import { PASTE_OFF, PASTE_ON, Pastes } from "./paste.ts";

/** What the user entered: a line, or Ctrl-C or Ctrl-D instead. */
export type Entry = { line: string } | "cancelled" | "ended";

/** Keys that end an entry: the line ends, Ctrl-C, Ctrl-D and Ctrl-Z. */
const ENDS = "\r\n\x03\x04\x1a";

/** Candidates for the end of a line, and the part of it that they replace. */
export type Complete = (line: string) => [candidates: string[], replaced: string];

/**
 * Reads lines from the terminal with the keys, history and completion of Node's readline. While no line is asked for, keys wait and
 * Ctrl-C is a signal.
 */
export class LineEditor implements Disposable {
  readonly #run: CommandRun;
  readonly #keys = new PassThrough();
  readonly #readline: Interface;
  readonly #pastes = new Pastes();
  /** A terminal without control sequences edits lines itself. */
  readonly #edits: boolean;
  /** Keys that were read and belong to a later line. */
  #waiting = "";
  #hungUp = false;
  #failure: { error: unknown } | undefined;
  #wake: () => void = () => {};
  #ended = false;
  #answer: (entry: Entry) => void = () => {};

  constructor(run: CommandRun, complete: Complete, history: History) {
    this.#run = run;
    const { world } = run;
    this.#edits = world.env("TERM") !== "dumb";
    this.#readline = createInterface({
      input: this.#keys,
      output: this.#screen(),
      terminal: this.#edits,
      history: [...history.lines],
      historySize: HISTORY_LINES,
      removeHistoryDuplicates: true,
      completer: complete,
    });
    this.#readline.on("line", (entered: string) => {
      const line = this.#pastes.expand(entered);
      // The name of a paste says nothing to a later conversation.
      if (this.#edits && line === entered && line.trim() !== "") history.add(line);
      this.#answer({ line });
    });
    this.#readline.on("SIGINT", () => this.#cancel());
    this.#readline.on("SIGTSTP", () => this.#suspend());
    this.#readline.on("close", () => this.#end());
    this.#takeTerminal("signals");
    this.#readKeys();
  }

  /** Readline wraps the line at the width of its output. */
  #screen(): Writable {
    const { world, output } = this.#run;
    const screen = new Writable({
      decodeStrings: false,
      write: (text: string, _encoding, done): void => {
        output.draw(text);
        done();
      },
    });
    return Object.defineProperty(screen, "columns", { get: () => world.columns() });
  }

  /** The next line. Rejects when a signal ends the run, or when stdin cannot be read. */
  async ask(prompt: string): Promise<Entry> {
    if (this.#ended) return "ended";
    let entry: Entry | undefined;
    this.#answer = (given) => entry ??= given;
    this.#setKeyMode("keys");
    try {
      this.#readline.setPrompt(prompt);
      this.#readline.prompt();
      while (entry === undefined) await this.#run.interrupt.race(this.#feed());
      return entry;
    } finally {
      this.#setKeyMode("signals");
    }
  }

  /** Passes keys to readline, up to the first one that ends an entry. */
  async #feed(): Promise<void> {
    while (this.#waiting === "" && !this.#hungUp) await new Promise<void>((resolve) => this.#wake = resolve);
    if (this.#failure) throw this.#failure.error;
    const length = entryLength(this.#waiting);
    const keys = this.#waiting.slice(0, length);
    this.#waiting = this.#waiting.slice(length);
    await new Promise<void>((resolve) => {
      const done = (): void => void setTimeout(resolve, 0); // readline gets them in the next turn of the event loop
      if (keys === "") this.#keys.end(done);
      else this.#keys.write(keys, done);
    });
  }

  /** Reads keys as long as there are some, also those that are pressed during an answer, since a terminal keeps only a few thousand. */
  async #readKeys(): Promise<void> {
    const decoder = new TextDecoder();
    const buffer = new Uint8Array(64 * 1024);
    try {
      for (let count = await this.#read(buffer); count !== null; count = await this.#read(buffer)) {
        this.#waiting += this.#pastes.filter(decoder.decode(buffer.subarray(0, count), { stream: true }));
        this.#wake();
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#hungUp = true;
    this.#wake();
  }

  #read(buffer: Uint8Array<ArrayBuffer>): Promise<number | null> {
    return this.#run.world.stdin.read(buffer);
  }

  #end(): void {
    this.#ended = true;
    if (this.#edits) this.#run.output.draw("\n");
    this.#answer("ended");
  }

  #cancel(): void {
    const { line } = this.#readline;
    this.#run.output.draw("^C\n");
    if (line === "") this.#run.output.note("Ctrl-D ends the conversation");
    this.#readline.write(null, { ctrl: true, name: "e" });
    this.#readline.write(null, { ctrl: true, name: "u" });
    this.#answer("cancelled");
  }

  #suspend(): void {
    this.#giveTerminalBack();
    this.#run.world.suspend();
    this.#takeTerminal("keys");
    this.#readline.prompt(true);
  }

  #takeTerminal(mode: KeyMode): void {
    this.#setKeyMode(mode);
    if (this.#edits) this.#run.output.draw(PASTE_ON);
  }

  #giveTerminalBack(): void {
    if (this.#edits) this.#run.output.draw(PASTE_OFF);
    this.#setKeyMode("lines");
  }

  #setKeyMode(mode: KeyMode): void {
    if (this.#edits) this.#run.world.setKeyMode(mode);
  }

  [Symbol.dispose](): void {
    this.#readline.removeAllListeners();
    this.#readline.close();
    this.#giveTerminalBack();
  }
}

/** Length of the first entry of some keys, or of all of them if it is not complete. */
function entryLength(keys: string): number {
  for (let at = 0; at < keys.length; at++) {
    if (ENDS.includes(keys.charAt(at))) return keys.startsWith("\r\n", at) ? at + 2 : at + 1;
  }
  return keys.length;
}
