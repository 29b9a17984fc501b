import { basename, dirname, join } from "@std/path";
import { PagesiftError, reasonOf } from "../errors.ts";

/** A JSON object of unknown content. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Nesting and entry limits of {@link findJsonProblem}. */
export interface JsonLimits {
  /** Objects and arrays inside each other. */
  maxDepth: number;
  /** Keys of one object. */
  maxKeys: number;
  /** Values in all: a parsed one takes many times the bytes of the text, so that 100 MB of "[]," would end the process. */
  maxValues: number;
}

const DEFAULT_LIMITS: JsonLimits = { maxDepth: 64, maxKeys: 1_000_000, maxValues: 8_000_000 };
const MAX_BYTES = 100_000_000;

const QUOTE = 0x22, COMMA = 0x2c, OPEN_LIST = 0x5b, BACKSLASH = 0x5c, CLOSE_LIST = 0x5d, OPEN = 0x7b, CLOSE = 0x7d;

/** Whether a parsed value is an object, not a list and not null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Parses text that must contain one JSON object and refuses what `JSON.parse` lets pass: repeated keys, which it drops in
 * silence, and nesting or key counts beyond `limits`. Accepts `NaN`, `Infinity` and `-Infinity`, which Python writes and
 * reads. Throws "model" errors that name `file`.
 */
export function parseJsonObject(text: string, file: string, limits: JsonLimits = DEFAULT_LIMITS): JsonObject {
  const literals: Literal[] = [];
  const problem = findJsonProblem(text, limits, literals);
  if (problem !== undefined) throw new PagesiftError("model", `Cannot read "${file}": ${problem}`);
  const value = parseJson(text, literals, file);
  if (isJsonObject(value)) return value;
  throw new PagesiftError("model", `Cannot read "${file}": expected a JSON object; download the file again`);
}

/**
 * Reads a regular file of a model folder, at most 100 MB with one JSON object; undefined if it does not exist.
 * Anything else throws a "model" error.
 */
export async function readJsonFile(file: string): Promise<JsonObject | undefined> {
  const info = await statOrUndefined(file);
  if (info === undefined) return undefined;
  await refuseLinkOut(file);
  // A device or a pipe would block or never end, so the kind is checked before the file is opened.
  if (!info.isFile) throw new PagesiftError("model", `Cannot read "${file}": expected a regular file`);
  if (info.size > MAX_BYTES) {
    throw new PagesiftError("model", `Cannot read "${file}": ${info.size} bytes, expected at most ${MAX_BYTES}`);
  }
  return parseJsonObject(decodeText(await readBytes(file), file), file);
}

/** `Deno.stat` or `Deno.lstat`, with undefined where nothing exists; other failures are "model" errors. */
export async function statOrUndefined(path: string, stat = Deno.stat): Promise<Deno.FileInfo | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new PagesiftError("model", `Cannot read "${path}": ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Refuses a file of a model folder that is a link to elsewhere, through which a model could have any file of the user's read. A link may
 * stay in its folder or, in the Hugging Face cache, point from a snapshot to a blob of the same model.
 */
export async function refuseLinkOut(file: string): Promise<void> {
  const [root, target] = [await realPath(dirname(file)), await realPath(file)];
  if (dirname(target) === root) return;
  // A file may lie in a folder of the snapshot.
  for (const snapshot of [root, dirname(root)]) {
    const repository = dirname(dirname(snapshot));
    const isSnapshot = basename(dirname(snapshot)) === "snapshots" && basename(repository).startsWith("models--");
    if (isSnapshot && dirname(target) === join(repository, "blobs")) return;
  }
  throw new PagesiftError("model", `File "${file}" is a link out of its folder; copy the file there instead`);
}

async function realPath(path: string): Promise<string> {
  try {
    return await Deno.realPath(path);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot open "${path}": ${reasonOf(cause)}; download the model again`, { cause });
  }
}

async function readBytes(file: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(file);
  } catch (error) {
    throw new PagesiftError("model", `Cannot read "${file}": ${reasonOf(error)}`, { cause: error });
  }
}

function decodeText(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": not UTF-8 text; download the file again`, { cause });
  }
}

function parseJson(text: string, literals: readonly Literal[], file: string): unknown {
  try {
    return literals.length === 0 ? JSON.parse(text) : parseWithLiterals(text, literals);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot read "${file}": not valid JSON; download the file again`, { cause });
  }
}

/** Parses text in which strings that no file can contain stand in for the literals. */
function parseWithLiterals(text: string, literals: readonly Literal[]): unknown {
  const marker = crypto.randomUUID();
  const quoted = { NaN: `"${marker}NaN"`, Infinity: `"${marker}Infinity"`, "-Infinity": `"${marker}-Infinity"` };
  const parts: string[] = [];
  let done = 0;
  for (const { start, name } of literals) {
    parts.push(text.slice(done, start), quoted[name]);
    done = start + name.length;
  }
  parts.push(text.slice(done));
  const wrapped: unknown[] = [JSON.parse(parts.join(""))];
  replaceMarked(wrapped, marker);
  return wrapped[0];
}

/** Replaces the marked strings below `root` by their numbers; a reviver of `JSON.parse` takes several times as long. */
function replaceMarked(root: unknown[], marker: string): void {
  const open: object[] = [root];
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    const entries = item as Record<string, unknown>;
    for (const key in entries) {
      const value = entries[key];
      if (typeof value === "object" && value !== null) open.push(value);
      else if (typeof value === "string" && value.startsWith(marker)) {
        entries[key] = Number(value.slice(marker.length));
      }
    }
  }
}

/** A number that Python's JSON has and JSON itself lacks. */
interface Literal {
  start: number;
  name: (typeof LITERALS)[number];
}

const LITERALS = ["NaN", "Infinity", "-Infinity"] as const;
const MINUS = 0x2d, CAPITAL_I = 0x49, CAPITAL_N = 0x4e;

/**
 * Walks JSON text once without recursion; undefined when nothing is wrong. Syntax is left to `JSON.parse`. Adds the literals
 * that it meets where a value may stand to `literals`.
 */
function findJsonProblem(text: string, limits: JsonLimits, literals: Literal[]): string | undefined {
  const open: (Set<string> | undefined)[] = []; // one entry an open object (its keys) or list (undefined)
  let keyNext = false;
  let values = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) {
      const end = stringEnd(text, i);
      if (end < 0) return undefined;
      const keys = keyNext ? open.at(-1) : undefined;
      const problem = keys && addKey(keys, text.slice(i, end + 1), limits);
      if (problem) return problem;
      keyNext = false;
      i = end;
    } else if (code === OPEN || code === OPEN_LIST) {
      if (open.length === limits.maxDepth) return `nested deeper than ${limits.maxDepth} levels`;
      if (++values > limits.maxValues) return `more than ${limits.maxValues} values`;
      open.push(code === OPEN ? new Set() : undefined);
      keyNext = code === OPEN;
    } else if (code === CLOSE || code === CLOSE_LIST) {
      open.pop();
      keyNext = false;
    } else if (code === COMMA) {
      if (++values > limits.maxValues) return `more than ${limits.maxValues} values`;
      keyNext = open.at(-1) !== undefined;
    } else if ((code === MINUS || code === CAPITAL_I || code === CAPITAL_N) && !keyNext) {
      const name = LITERALS.find((literal) => text.startsWith(literal, i));
      if (name === undefined) continue;
      literals.push({ start: i, name });
      i += name.length - 1;
    }
  }
}

/** Adds a quoted key; keys are compared decoded, because `"a"` and `"\u0061"` name the same entry. */
function addKey(keys: Set<string>, quoted: string, limits: JsonLimits): string | undefined {
  const key = quoted.includes("\\") ? decodeKey(quoted) : quoted.slice(1, -1);
  if (keys.has(key)) return `key "${shorten(key)}" appears twice`;
  if (keys.size === limits.maxKeys) return `more than ${limits.maxKeys} entries`;
  keys.add(key);
}

function decodeKey(quoted: string): string {
  try {
    return JSON.parse(quoted);
  } catch {
    return quoted; // not valid JSON, which `JSON.parse` of the whole text reports
  }
}

/** Index of the closing quote of the string that opens at `start`, or -1. */
function stringEnd(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end >= 0 && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end;
}

function isEscaped(text: string, index: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(index - 1 - backslashes) === BACKSLASH) backslashes++;
  return backslashes % 2 === 1;
}

/** Text of a file, cut and made printable so that it can stand in a one-line message. */
export function shorten(text: string, length = 80): string {
  const cut = text.length > length ? `${text.slice(0, length)}...` : text;
  // deno-lint-ignore no-control-regex
  return cut.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}

/** A value of a file as a message quotes it. */
export function quote(value: unknown): string {
  if (typeof value === "number") return String(value); // JSON has no NaN and no infinity
  return value === undefined ? "missing" : shorten(JSON.stringify(value));
}
