import { PagesiftError, reasonOf } from "../engine/errors.ts";
import { formatCount, plural } from "../engine/text/format.ts";
import type { CommandRun } from "./command_run.ts";
import { decodeText } from "./text_decode.ts";

/** The path that means stdin. */
export const STDIN = "-";

/** Other names of stdin, which Deno opens only with all permissions. */
const STDIN_PATHS = new Set([STDIN, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]);

/** Whether a path means stdin. */
export function isStdin(path: string): boolean {
  return STDIN_PATHS.has(path);
}

/** Longest text that is read. */
export const MAX_BYTES = 256 * 2 ** 20;
const FIRST_BUFFER_BYTES = 64 * 1024;
const STDIN_NOTICE_MS = 2000;

type Read = (buffer: Uint8Array<ArrayBuffer>) => Promise<number | null>;

/** The text of a file, or of stdin for `-`. */
export async function readText(path: string, session: CommandRun, lossy: boolean): Promise<string> {
  const name = isStdin(path) ? "Text on stdin" : `Prompt file "${path}"`;
  const bytes = isStdin(path) ? await readStdin(name, session) : await readFile(path, name, session);
  const { text, replaced } = decodeText(bytes, name, lossy);
  if (replaced > 0) session.output.warn(`${name}: replaced ${plural(replaced, "invalid character")}`);
  return text;
}

/** Without a notice, a pipe that receives no data would look like a hanging program. */
async function readStdin(name: string, { world, output, interrupt }: CommandRun): Promise<Uint8Array> {
  const notice = "Waiting for text on stdin; end it with Ctrl-D, or pass --no-stdin to ignore stdin";
  const timer = setTimeout(() => output.note(notice), STDIN_NOTICE_MS);
  const read: Read = async (buffer) => {
    const count = await interrupt.race(world.stdin.read(buffer));
    clearTimeout(timer);
    return count;
  };
  try {
    return await readBounded(read, name, interrupt.signal);
  } finally {
    clearTimeout(timer);
  }
}

async function readFile(path: string, name: string, { interrupt }: CommandRun): Promise<Uint8Array> {
  using file = await interrupt.race(Deno.open(path)).catch((error) => {
    throw unreadable(name, error, interrupt.signal);
  });
  return await readBounded((buffer) => interrupt.race(file.read(buffer)), name, interrupt.signal);
}

async function readBounded(read: Read, name: string, signal: AbortSignal): Promise<Uint8Array> {
  let bytes = new Uint8Array(FIRST_BUFFER_BYTES);
  let length = 0;
  for (;;) {
    const count = await read(bytes.subarray(length)).catch((error) => {
      throw unreadable(name, error, signal);
    });
    if (count === null) return bytes.subarray(0, length);
    length += count;
    if (length > MAX_BYTES) throw tooLong(name);
    if (length === bytes.length) bytes = doubled(bytes);
  }
}

function doubled(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(bytes.length * 2);
  larger.set(bytes);
  return larger;
}

export function tooLong(name: string): PagesiftError {
  return new PagesiftError("usage", `${name} is longer than ${formatCount(MAX_BYTES)} bytes; pass a part of it`);
}

/** An abort is passed on, since the file did not cause it. */
function unreadable(name: string, error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return error;
  return new PagesiftError("usage", `${name} ${readFailure(error)}`, { cause: error });
}

function readFailure(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) {
    return `cannot be read: ${reasonOf(error)}, or pass it through stdin with -f -`;
  }
  if (error instanceof Deno.errors.NotFound) return "not found";
  if (error instanceof Deno.errors.PermissionDenied) return "cannot be read: permission denied";
  if (/EISDIR|is a directory/i.test(String(error))) return "is a folder, expected a text file";
  return `cannot be read: ${reasonOf(error)}`;
}
