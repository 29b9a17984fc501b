import { dirname, join } from "@std/path";
import { reasonOf } from "../../engine/errors.ts";
import { replaceFile } from "../../engine/prompts/files.ts";
import type { CommandRun } from "../command_run.ts";

/** Lines that are kept. */
export const HISTORY_LINES = 1000;

/** The file by the convention of the platform; undefined without a home folder. */
export function historyFile(env: (name: string) => string | undefined, os = Deno.build.os): string | undefined {
  const named = env("PAGESIFT_HISTORY");
  if (named) return named;
  const home = env("HOME");
  const states = os === "windows"
    ? env("LOCALAPPDATA")
    : os === "darwin"
    ? home && join(home, "Library", "Application Support")
    : env("XDG_STATE_HOME") || home && join(home, ".local", "state");
  return states && join(states, "pagesift", "history");
}

/** The lines of earlier conversations, in a file that only its owner can read. */
export class History {
  #file: string | undefined;
  readonly #run: CommandRun;
  /** The latest line first. */
  readonly lines: readonly string[];

  private constructor(run: CommandRun, file: string | undefined, lines: readonly string[]) {
    this.#run = run;
    this.#file = file;
    this.lines = lines.toReversed();
  }

  /** Reads the file and shortens it to {@link HISTORY_LINES}. If that fails, a warning says so and nothing is kept. */
  static async open(run: CommandRun): Promise<History> {
    const file = historyFile((name) => run.world.env(name));
    if (file === undefined) return new History(run, undefined, []);
    try {
      await Deno.mkdir(dirname(file), { recursive: true, mode: 0o700 });
      const lines = await readLines(file);
      const latest = lines.slice(-HISTORY_LINES);
      // Half as many again, so that not every conversation writes all of it.
      if (lines.length > 1.5 * HISTORY_LINES) {
        await replaceFile(file, new TextEncoder().encode(latest.join("\n") + "\n"));
      }
      return new History(run, file, latest);
    } catch (error) {
      const none = new History(run, file, []);
      none.#giveUp(file, error);
      return none;
    }
  }

  /** Appends a line, so that conversations at the same time keep the lines of each other. */
  add(line: string): void {
    if (this.#file === undefined) return;
    try {
      // Deno.writeTextFile would change the mode of a file that exists, even of /dev/null.
      using file = Deno.openSync(this.#file, { append: true, create: true, mode: 0o600 });
      file.writeSync(new TextEncoder().encode(line + "\n"));
    } catch (error) {
      this.#giveUp(this.#file, error);
    }
  }

  #giveUp(file: string, error: unknown): void {
    this.#file = undefined;
    this.#run.output.warn(
      `Cannot keep entered lines in "${file}": ${
        reasonOf(error)
      }; PAGESIFT_HISTORY names another file, or /dev/null for none`,
    );
  }
}

/** None if the file is missing, or is no regular file, such as /dev/null. */
async function readLines(file: string): Promise<string[]> {
  try {
    const { isFile } = await Deno.stat(file);
    return isFile ? (await Deno.readTextFile(file)).split("\n").filter((line) => line !== "") : [];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
