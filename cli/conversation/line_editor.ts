import { createInterface, type Interface } from "node:readline";
import { PassThrough, Writable } from "node:stream";
import type { CommandRun } from "../command_run.ts";
import { PASTE_OFF, PASTE_ON, Pastes } from "./paste.ts";

/** What the user entered: a line, or Ctrl-C or Ctrl-D instead. */
export type Entry = { line: string } | "cancelled" | "ended";

/** Candidates for the end of a line, and the part of it that they replace. */
export type Complete = (line: string) => [candidates: string[], replaced: string];

/**
 * Reads lines from the terminal with the keys, history and completion of Node's readline. It reads keys only while a line is asked for;
 * keys that are pressed before then wait, and Ctrl-C is a signal.
 */
export class LineEditor implements Disposable {
  readonly #run: CommandRun;
  readonly #keys = new PassThrough();
  readonly #readline: Interface;
  readonly #pastes = new Pastes();
  readonly #decoder = new TextDecoder();
  /** A terminal without control sequences edits lines itself. */
  readonly #edits: boolean;
  /** Keys that were read but belong to a later line. */
  #waiting = "";
  #ended = false;
  #reading: Promise<number | null> | undefined;
  readonly #buffer = new Uint8Array(4096);
  #answer: (entry: Entry) => void = () => {};

  constructor(run: CommandRun, complete: Complete) {
    this.#run = run;
    const { world } = run;
    this.#edits = world.env("TERM") !== "dumb";
    this.#readline = createInterface({
      input: this.#keys,
      output: this.#screen(),
      terminal: this.#edits,
      historySize: 1000,
      removeHistoryDuplicates: true,
      completer: complete,
    });
    this.#readline.on("line", (line: string) => this.#answer({ line: this.#pastes.expand(line) }));
    this.#readline.on("SIGINT", () => this.#cancel());
    this.#readline.on("SIGTSTP", () => this.#suspend());
    this.#readline.on("close", () => this.#end());
    this.#setKeyMode("signals");
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

  /** The next line. Rejects when a signal ends the run. */
  async ask(prompt: string): Promise<Entry> {
    if (this.#ended) return "ended";
    const { promise, resolve } = Promise.withResolvers<Entry>();
    let entry: Entry | undefined;
    this.#answer = (given) => resolve(entry ??= given);
    this.#setKeyMode("keys");
    try {
      this.#readline.setPrompt(prompt);
      this.#readline.prompt();
      while (entry === undefined) await this.#run.interrupt.race(Promise.race([promise, this.#feed()]));
      return entry;
    } finally {
      this.#setKeyMode("signals");
    }
  }

  /** Passes keys to readline, up to the end of one line. */
  async #feed(): Promise<void> {
    if (this.#waiting === "") {
      this.#reading ??= this.#run.world.stdin.read(this.#buffer);
      const count = await this.#reading;
      this.#reading = undefined;
      if (count === null) return void this.#keys.end();
      this.#waiting += this.#pastes.filter(this.#decoder.decode(this.#buffer.subarray(0, count), { stream: true }));
    }
    const end = /\r\n|[\r\n]/.exec(this.#waiting);
    const length = end === null ? this.#waiting.length : end.index + end[0].length;
    const keys = this.#waiting.slice(0, length);
    this.#waiting = this.#waiting.slice(length);
    await new Promise<void>((resolve) => this.#keys.write(keys, () => setTimeout(resolve, 0)));
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
    this.#setKeyMode("lines");
    this.#run.world.suspend();
    this.#setKeyMode("keys");
    this.#readline.prompt(true);
  }

  #setKeyMode(mode: "lines" | "signals" | "keys"): void {
    if (!this.#edits) return;
    this.#run.world.setKeyMode(mode);
    this.#run.output.draw(mode === "keys" ? PASTE_ON : PASTE_OFF);
  }

  [Symbol.dispose](): void {
    this.#readline.removeAllListeners();
    this.#readline.close();
    this.#setKeyMode("lines");
  }
}
