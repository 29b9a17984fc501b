/** The programs of tests/native that are linked with the objects of the CPU library. */
import { join } from "@std/path";
import { BuildError, objectFor, ROOT, sourcesIn } from "../release/native_library.ts";

/** A program of tests/native. */
export interface Native {
  name: string;
  sources: readonly string[];
  /** Extra compiler flags. */
  flags: readonly string[];
  args: readonly string[];
}

export interface Ran {
  code: number;
  output: string;
}

/** Refused memory, mappings and threads: their requests pass through the program. */
export const FAULTS: Native = {
  name: "faults",
  sources: ["faults"],
  flags: ["-Wl,--wrap=mmap,--wrap=pthread_create"],
  args: [],
};

/** About 6,000 random calls per round. */
export function fuzz(rounds: number): Native {
  return { name: "fuzz", sources: ["fuzz", "calls"], flags: [], args: [String(rounds)] };
}

export function threads(rounds: number): Native {
  return { name: "threads", sources: ["threads"], flags: [], args: [String(rounds)] };
}

/** Runs a program in the root of the tree; stdout and stderr together. */
export async function runProgram(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    env: { NO_COLOR: "1", ...env },
    cwd: ROOT,
    stdin: "null",
  }).output();
  return { code, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

/** The objects of the library itself, without others in the folder. */
function libraryObjects(folder: string): string[] {
  const sources = ["csrc/api", "csrc/cpu"].flatMap((from) => sourcesIn(from, [".cpp"]));
  const built = new Set(sourcesIn(folder, [".o"]));
  return sources.map((source) => objectFor(source, join(ROOT, folder))).filter((object) => built.has(object));
}

/**
 * Links a program with the objects of a library in `folder`, which is relative to the root of the tree. Returns its path.
 *
 * @throws {BuildError}
 */
export async function buildNative(
  compiler: string,
  folder: string,
  native: Native,
  flags: readonly string[],
): Promise<string> {
  const program = join(ROOT, folder, native.name);
  const files = native.sources.map((source) => join(ROOT, "tests", "native", `${source}.cpp`));
  const all = ["-std=c++17", "-pthread", "-Wall", "-Wextra", ...flags, ...native.flags];
  const { code, output } = await runProgram(compiler, [...all, ...files, ...libraryObjects(folder), "-o", program]);
  if (code !== 0) {
    throw new BuildError(`tests/native/${native.name} could not be built: ${output.trim().split("\n")[0]}`);
  }
  return program;
}

/** The result line of a program. */
export function resultOf(output: string): string {
  return output.match(/^(?:calls|faults|rounds|products|caches) .*$|number_of_executed_units: \d+/m)?.[0] ?? "";
}
