import { PagesiftError, reasonOf } from "../errors.ts";

/** Fills the buffer as far as the file reaches; returns how far. `file` stands in messages only. */
export function readFully(handle: Deno.FsFile, buffer: Uint8Array, file: string): number {
  let done = 0;
  try {
    while (done < buffer.length) {
      const count = handle.readSync(buffer.subarray(done));
      if (count === null) break;
      done += count;
    }
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": ${reasonOf(cause)}`, { cause });
  }
  return done;
}

/** Opens a file for reading; a failure is a "model" error. */
export function openModelFile(file: string): Deno.FsFile {
  try {
    return Deno.openSync(file);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot open "${file}": ${reasonOf(cause)}`, { cause });
  }
}
