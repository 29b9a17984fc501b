import { PagesiftError } from "../errors.ts";
import { isJsonObject, type JsonObject, shorten } from "./json_file.ts";

/** Bounds of a number field. */
export interface Range {
  min: number;
  max: number;
}

/**
 * Typed reads of one JSON object. A field that is absent or null has the value of the fallback, and is an error without one; a
 * field of another type or out of range is a "model" error that names the field, the file and the expected values.
 */
export class ConfigFields {
  /** `label` gives the name of a field as its file has it, for messages. */
  constructor(readonly json: JsonObject, readonly file: string, readonly label = (name: string): string => name) {}

  has(name: string): boolean {
    return this.json[name] !== undefined && this.json[name] !== null;
  }

  count(name: string, range: Range, fallback?: number): number {
    const valid = (value: number) => Number.isSafeInteger(value) && inRange(value, range);
    return this.#numeric(name, `an integer ${describeRange(range)}`, valid, fallback);
  }

  number(name: string, range: Range, fallback?: number): number {
    const valid = (value: number) => Number.isFinite(value) && inRange(value, range);
    return this.#numeric(name, `a number ${describeRange(range)}`, valid, fallback);
  }

  optionalCount(name: string, range: Range): number | undefined {
    return this.has(name) ? this.count(name, range) : undefined;
  }

  optionalNumber(name: string, range: Range): number | undefined {
    return this.has(name) ? this.number(name, range) : undefined;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.json[name] ?? fallback;
    return typeof value === "boolean" ? value : this.refuse(name, "true or false");
  }

  text(name: string, fallback?: string): string {
    const value = this.json[name] ?? fallback;
    return typeof value === "string" ? value : this.refuse(name, "a string");
  }

  /** A list whose items all pass `isItem`; empty if the field is absent. */
  list<T>(name: string, expected: string, isItem: (item: unknown) => item is T): readonly T[] {
    const value = this.json[name] ?? [];
    return Array.isArray(value) && value.every(isItem) ? value : this.refuse(name, expected);
  }

  object(name: string): ConfigFields {
    const value = this.json[name];
    return isJsonObject(value) ? new ConfigFields(value, this.file) : this.refuse(name, "an object");
  }

  /** Token ids: one number, a list or null. Negative ones, which some files write for "none", are skipped. */
  tokenIds(name: string): readonly number[] {
    const value = this.json[name];
    const ids = typeof value === "number" && isTokenId(value)
      ? [value]
      : this.list(name, "a token id or a list of token ids", isTokenId);
    return ids.filter((id) => id >= 0);
  }

  refuse(name: string, expected: string): never {
    const found = describe(this.json[name]);
    throw new PagesiftError(
      "model",
      `Field "${this.label(name)}" of "${this.file}" must be ${expected}, found ${found}`,
    );
  }

  #numeric(name: string, expected: string, valid: (value: number) => boolean, fallback?: number): number {
    const value = this.json[name] ?? fallback;
    return typeof value === "number" && valid(value) ? value : this.refuse(name, expected);
  }
}

/** What fits the native library's signed 32 bits. */
function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && inRange(value as number, { min: -(2 ** 31), max: 2 ** 31 - 1 });
}

function inRange(value: number, { min, max }: Range): boolean {
  return value >= min && value <= max;
}

function describeRange({ min, max }: Range): string {
  return max === Infinity ? `of at least ${min}` : `from ${min} to ${max}`;
}

/** A value of the file for a message: short, one line, and never a recursion into it. */
function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length <= 4 ? `[${value.map(describeItem).join(", ")}]` : "a list";
  return describeItem(value);
}

function describeItem(value: unknown): string {
  if (typeof value === "string") return `"${shorten(value)}"`;
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The object without its undefined entries. */
export function present<T extends object>(values: T): Present<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Present<T>;
}
