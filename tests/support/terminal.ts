/** A program in a pseudo-terminal, which "script" of util-linux opens. */

/** Whether this machine can open pseudo-terminals for tests. */
export function hasTerminals(): boolean {
  if (Deno.build.os !== "linux") return false;
  try {
    return new Deno.Command("script", { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** A running program, its keyboard and its screen. */
export class Terminal implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #keys: WritableStreamDefaultWriter<Uint8Array>;
  readonly #screen: ReadableStreamDefaultReader<string>;
  /** Everything that the program has printed, control sequences included. */
  text = "";
  #seen = 0;

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    this.#child = new Deno.Command("script", {
      args: ["--quiet", "--return", "--command", `exec ${quoted}`, "/dev/null"],
      env: { TERM: "xterm", NO_COLOR: "1", SHELL: "/bin/sh", PAGESIFT_HISTORY: "/dev/null", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#keys = this.#child.stdin.getWriter();
    this.#screen = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  async press(keys: string): Promise<void> {
    await this.#keys.write(new TextEncoder().encode(keys));
  }

  /** Reads until the text appears after everything that was waited for before; returns what appeared up to its end. */
  async waitFor(text: string): Promise<string> {
    for (;;) {
      const at = this.text.indexOf(text, this.#seen);
      if (at >= 0) {
        const appeared = this.text.slice(this.#seen, at + text.length);
        this.#seen = at + text.length;
        return appeared;
      }
      const { value, done } = await this.#screen.read();
      if (done) throw new Error(`The program ended without "${text}": ${JSON.stringify(this.text)}`);
      this.text += value;
    }
  }

  /** Reads to the end; returns the exit code, 128 and more after a signal. */
  async end(): Promise<number> {
    for (let next = await this.#screen.read(); !next.done; next = await this.#screen.read()) this.text += next.value;
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGHUP");
    } catch {
      // It has ended.
    }
    await this.#keys.close().catch(() => {});
    await this.#screen.cancel();
    await this.#child.status;
  }
}
