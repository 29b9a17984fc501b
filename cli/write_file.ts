import { basename, dirname, join } from "@std/path";
import { PagesiftError, reasonOf } from "../engine/errors.ts";
import { OutputError } from "./output.ts";

/** A file that a run writes at its end, checked at its start. */
export interface TargetFile {
  /** Its path, with links resolved. */
  path: string;
}

/**
 * Makes sure that a file can be written, and leaves no trace of the check.
 *
 * @throws {PagesiftError} of kind "usage" that names the flag
 */
export function targetFile(flag: string, path: string): TargetFile {
  try {
    const target = { path: resolved(path) };
    Deno.writeTextFileSync(temporary(target), "", { createNew: true });
    Deno.removeSync(temporary(target));
    return target;
  } catch (error) {
    throw new PagesiftError("usage", `${flag} "${path}" cannot be written: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** An existing file must be a regular file, since it is replaced. */
function resolved(path: string): string {
  if (!exists(path)) return path;
  const real = Deno.realPathSync(path);
  const { isFile, isDirectory } = Deno.statSync(real);
  if (!isFile) throw new Error(isDirectory ? "it is a folder" : "it is not a regular file");
  return real;
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** In the same folder as the target, so that one rename replaces it. */
function temporary({ path }: TargetFile): string {
  return join(dirname(path), `.${basename(path)}.${Deno.pid}.tmp`);
}

/** Writes a file whole or not at all. @throws {OutputError} */
export function writeTarget(target: TargetFile, data: string | Uint8Array): void {
  const part = temporary(target);
  try {
    Deno.writeFileSync(part, typeof data === "string" ? new TextEncoder().encode(data) : data, { createNew: true });
    Deno.renameSync(part, target.path);
  } catch (error) {
    try {
      Deno.removeSync(part);
    } catch {
      // It was never created.
    }
    throw new OutputError(false, { cause: error });
  }
}
