/** What install and uninstall share: the prefix, and the files that an earlier installation wrote into it. */
import { parseArgs } from "@std/cli/parse-args";
import { join, resolve } from "@std/path";
import { log } from "../output.ts";
import { BuildError } from "./native_library.ts";
import { MANIFEST, sha256 } from "./stage.ts";

/** A file of an installation, relative to the prefix. */
export interface Installed {
  path: string;
  sha256: string;
}

/** The folder of `--prefix`; default: `~/.local`. @throws {BuildError} */
function readPrefix(args: readonly string[], task: string): string {
  const unknown = (word: string): never => {
    throw new BuildError(`Unknown argument "${word}"; usage: deno task ${task} [--prefix DIR]`);
  };
  const { prefix } = parseArgs([...args], { string: ["prefix"], unknown });
  if (prefix === "") throw new BuildError("--prefix requires a folder: --prefix DIR");
  // "deno task" changes to the checkout, and leaves the folder of the call in INIT_CWD.
  if (prefix !== undefined) return resolve(Deno.env.get("INIT_CWD") ?? Deno.cwd(), String(prefix));
  const home = Deno.env.get("HOME");
  if (!home) throw new BuildError("HOME is not set; pass --prefix DIR");
  return join(home, ".local");
}

/** The files that the manifest of a prefix lists, which does not list itself; undefined if there is no installation. */
export function readManifest(prefix: string): Installed[] | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(join(prefix, MANIFEST));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
  return text.trim().split("\n").map((line) => {
    const [, sha256, path] = /^([0-9a-f]{64}) {2}(.+)$/.exec(line) ?? [];
    if (sha256 !== undefined && path !== undefined && !path.split("/").includes("..")) return { path, sha256 };
    throw new BuildError(`${join(prefix, MANIFEST)} is damaged; remove the installation by hand`);
  });
}

/** Whether something exists at a path, even a link to nowhere. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Whether a file is still as it was installed. */
export async function isUnchanged(prefix: string, { path, sha256: expected }: Installed): Promise<boolean> {
  const file = join(prefix, path);
  return Deno.lstatSync(file).isFile && await sha256(file) === expected;
}

/** Runs a task on the prefix of the command line. An expected failure is one line, and the process ends with 1. */
export async function runTask(task: string, work: (prefix: string) => Promise<void>): Promise<void> {
  try {
    await work(readPrefix(Deno.args, task));
  } catch (error) {
    if (!(error instanceof BuildError) && !isFileError(error)) throw error;
    log(`${task}: ${error.message}`);
    Deno.exit(1);
  }
}

/** A failure of the file system, such as a folder that cannot be written. */
function isFileError(error: unknown): error is Error {
  return Object.values(Deno.errors).some((kind) => error instanceof kind);
}

/** Removes the program's folders that are empty now; folders such as `bin` and `share` stay, since they may be the user's. */
export function removeEmptyFolders(folder: string): void {
  if (!exists(folder)) return;
  for (const { name, isDirectory } of Deno.readDirSync(folder)) if (isDirectory) removeEmptyFolders(join(folder, name));
  if ([...Deno.readDirSync(folder)].length === 0) Deno.removeSync(folder);
}
