/** Python's values as a template sees them: how they print, compare, and iterate. */
import { charge } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";

/**
 * A Python value. `int` is a bigint and `float` a number, so that 1 and 1.0 stay apart; `str` is a string, whose length counts code
 * points.
 */
export type Value =
  | string
  | bigint
  | number
  | boolean
  | null
  | Undefined
  | Markup
  | List
  | Tuple
  | Dict
  | DictView
  | Range
  | Generator
  | Namespace
  | Callable;

/** A name or an item that is not there: empty when printed or iterated, an error in nearly everything else. */
export class Undefined {
  constructor(readonly what: string) {}

  fail(): TemplateError {
    return new TemplateError(`${this.what} is undefined`);
  }
}

/** A string that the `safe` filter marked. Without autoescape it prints as it is. */
export class Markup {
  constructor(readonly text: string) {}
}

export class List {
  constructor(readonly items: Value[]) {}
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** A dictionary in the order of insertion. Keys that Python calls equal, such as 1, 1.0 and True, are one key. */
export class Dict {
  readonly #entries = new Map<string, [Value, Value]>();

  static of(entries: Iterable<readonly [Value, Value]>): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) dict.set(key, value);
    return dict;
  }

  set(key: Value, value: Value): void {
    const hash = hashOf(key);
    this.#entries.set(hash, [this.#entries.get(hash)?.[0] ?? key, value]);
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hashOf(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(hashOf(key));
  }

  get size(): number {
    return this.#entries.size;
  }

  entries(): [Value, Value][] {
    return [...this.#entries.values()];
  }
}

/** What `keys()`, `values()` and `items()` give. */
export class DictView {
  constructor(readonly kind: "keys" | "values" | "items", readonly dict: Dict) {}

  get items(): Value[] {
    return this.dict.entries().map(([key, value]) =>
      this.kind === "items" ? new Tuple([key, value]) : this.kind === "keys" ? key : value
    );
  }
}

export class Range {
  readonly length: number;

  constructor(readonly start: number, readonly stop: number, readonly step: number) {
    if (step === 0) throw new TemplateError("range() has the step 0");
    this.length = Math.max(0, Math.ceil((stop - start) / step));
    // The limit of Jinja's sandbox.
    if (this.length > 100_000) throw new TemplateError("range() is longer than 100000");
  }

  get items(): bigint[] {
    return Array.from({ length: this.length }, (_, index) => BigInt(this.start + index * this.step));
  }
}

/** What `map`, `select` and their like give: items that can be iterated once. */
export class Generator {
  #items: Value[] | undefined;

  constructor(items: Value[]) {
    this.#items = items;
  }

  take(): Value[] {
    const items = this.#items ?? [];
    this.#items = [];
    return items;
  }

  next(): Value | undefined {
    return this.#items?.shift();
  }
}

export class Namespace {
  readonly members = new Map<string, Value>();

  set(name: string, value: Value): void {
    if (name.startsWith("_")) throw new TemplateError(`a namespace cannot have the member "${name}"`);
    this.members.set(name, value);
  }
}

export interface Arguments {
  args: Value[];
  kwargs: Map<string, Value>;
}

/** A function, a method, a macro, or an object of Jinja that can be called. */
export class Callable {
  constructor(
    readonly name: string,
    /** Undefined for an object that has members only. */
    readonly run: ((call: Arguments) => Value) | undefined,
    readonly member: (name: string) => Value | undefined = () => undefined,
  ) {}
}

/** The value, or what takes its place where there is none. Not `??`, since None is a value. */
export function given(value: Value | undefined, fallback: Value): Value {
  return value === undefined ? fallback : value;
}

/** The name of a value's type, for messages. */
export function typeName(value: Value): string {
  if (value === null) return "None";
  switch (typeof value) {
    case "string":
      return "a string";
    case "bigint":
      return "an integer";
    case "number":
      return "a float";
    case "boolean":
      return "a boolean";
  }
  if (value instanceof Undefined) return value.what;
  if (value instanceof Callable) return value.name;
  return `a ${value.constructor.name.toLowerCase()}`;
}

/** The canonical text of a key; equal keys have equal texts. */
function hashOf(key: Value): string {
  charge();
  if (typeof key === "string") return `s${key}`;
  if (key instanceof Markup) return `s${key.text}`;
  if (key === null) return "none";
  if (typeof key === "boolean") return key ? "n1" : "n0";
  if (typeof key === "bigint") return `n${key}`;
  if (typeof key === "number") return Number.isInteger(key) ? `n${BigInt(key)}` : `n${key}`;
  if (key instanceof Tuple) return `t${JSON.stringify(key.items.map(hashOf))}`;
  if (key instanceof Undefined) throw unsupported("an undefined value as a key");
  throw new TemplateError(`${typeName(key)} cannot be a key`);
}

export function isTrue(value: Value): boolean {
  if (value === null || value === false || value === "" || value === 0 || value === 0n) return false;
  if (value instanceof Undefined) return false;
  if (value instanceof Markup) return value.text !== "";
  if (value instanceof List || value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof DictView) return value.dict.size > 0;
  if (value instanceof Range) return value.length > 0;
  return true;
}

/** Characters of a string that print as an escape in `repr`. */
const UNPRINTABLE = /[\p{C}\p{Z}]/u;

function reprString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let out = quote;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (character === quote || character === "\\") out += `\\${character}`;
    else if (character === "\n") out += "\\n";
    else if (character === "\r") out += "\\r";
    else if (character === "\t") out += "\\t";
    else if (character === " " || !UNPRINTABLE.test(character)) out += character;
    else if (code < 0x100) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (code < 0x10000) out += `\\u${code.toString(16).padStart(4, "0")}`;
    else out += `\\U${code.toString(16).padStart(8, "0")}`;
  }
  charge(out.length);
  return out + quote;
}

/** A float as Python prints it: the shortest digits, with an exponent below 1e-4 and from 1e16 on. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa = "", exponentText = "0"] = Math.abs(value).toExponential().split("e");
  const exponent = Number(exponentText);
  const digits = mantissa.replace(".", "");
  const sign = value < 0 ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
    return `${sign}${digits[0]}${fraction}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

/** `repr(value)`. */
export function repr(value: Value): string {
  if (typeof value === "string") return reprString(value);
  if (value instanceof Markup) return `Markup(${reprString(value.text)})`;
  if (value instanceof Undefined) return "Undefined";
  return toText(value);
}

/** `str(value)`, which is what `{{ value }}` prints. */
export function toText(value: Value): string {
  charge();
  if (value === null) return "None";
  switch (typeof value) {
    case "string":
      return value;
    case "bigint":
      return String(value);
    case "number":
      return floatText(value);
    case "boolean":
      return value ? "True" : "False";
  }
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return "";
  if (value instanceof List) return `[${value.items.map(repr).join(", ")}]`;
  if (value instanceof Tuple) return `(${value.items.map(repr).join(", ")}${value.items.length === 1 ? "," : ""})`;
  if (value instanceof Dict) return `{${value.entries().map(([key, one]) => `${repr(key)}: ${repr(one)}`).join(", ")}}`;
  if (value instanceof DictView) return `dict_${value.kind}([${value.items.map(repr).join(", ")}])`;
  if (value instanceof Range) {
    return `range(${value.start}, ${value.stop}${value.step === 1 ? "" : `, ${value.step}`})`;
  }
  // Python prints an address here, which no template can mean.
  throw unsupported(`the text of ${typeName(value)}`);
}

/** The items of a value, code points of a string, keys of a dictionary. @throws {TemplateError} for what Python cannot iterate */
export function iterate(value: Value): Value[] {
  if (typeof value === "string") return [...value];
  if (value instanceof Markup) return [...value.text].map((character) => new Markup(character));
  if (value instanceof List) return value.items;
  if (value instanceof Tuple) return [...value.items];
  if (value instanceof Dict) return value.entries().map(([key]) => key);
  if (value instanceof DictView || value instanceof Range) return value.items;
  if (value instanceof Generator) return value.take();
  if (value instanceof Undefined) return [];
  throw new TemplateError(`${typeName(value)} cannot be iterated`);
}

export function isIterable(value: Value): boolean {
  return typeof value === "string" || value instanceof Undefined || value instanceof Markup || isSized(value) ||
    value instanceof Generator;
}

function isSized(value: Value): boolean {
  return value instanceof List || value instanceof Tuple || value instanceof Dict || value instanceof DictView ||
    value instanceof Range;
}

/** `len(value)`. */
export function length(value: Value): number {
  if (typeof value === "string") return codePoints(value);
  if (value instanceof Markup) return codePoints(value.text);
  if (value instanceof Undefined) return 0;
  if (value instanceof List || value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  if (value instanceof Range) return value.length;
  throw new TemplateError(`${typeName(value)} has no length`);
}

export function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** The value as a number where it is one: booleans count as 0 and 1. */
export function asNumber(value: Value): bigint | number | undefined {
  if (typeof value === "boolean") return value ? 1n : 0n;
  return typeof value === "bigint" || typeof value === "number" ? value : undefined;
}

/** The value as an index or a count. @throws {TemplateError} when it is no integer */
export function asInteger(value: Value): number {
  const number = asNumber(value);
  if (typeof number === "bigint") return Number(number);
  throw new TemplateError(`${typeName(value)} is used as an integer`);
}

export function asString(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Markup) throw unsupported("an operation on safe text");
  throw new TemplateError(`${typeName(value)} is used as a string`);
}

export function equals(a: Value, b: Value): boolean {
  charge();
  const [x, y] = [asNumber(a), asNumber(b)];
  // deno-lint-ignore eqeqeq -- 1n == 1 is exact where 1n === 1 is never true
  if (x !== undefined && y !== undefined) return x == y;
  if (a instanceof Markup) a = a.text;
  if (b instanceof Markup) b = b.text;
  if (a === b) return true;
  if (a instanceof Undefined && b instanceof Undefined) return true;
  if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
    const others = b.items;
    return a.items.length === others.length && a.items.every((item, index) => equals(item, others[index]!));
  }
  if (a instanceof Dict && b instanceof Dict) {
    return a.size === b.size && a.entries().every(([key, value]) => {
      const other = b.get(key);
      return other !== undefined && equals(value, other);
    });
  }
  if (a instanceof Range && b instanceof Range) return equals(new List(a.items), new List(b.items));
  if (a instanceof DictView && b instanceof DictView) throw unsupported("comparing views of dictionaries");
  return false;
}

/** Negative, zero or positive, as `<` orders the two. @throws {TemplateError} for values without an order */
export function compare(a: Value, b: Value): number {
  charge();
  const [x, y] = [asNumber(a), asNumber(b)];
  // NaN is neither less nor more; callers ask for the direction they need.
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : equals(a, b) ? 0 : NaN;
  if (a instanceof Markup) a = a.text;
  if (b instanceof Markup) b = b.text;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  if ((a instanceof List && b instanceof List) || (a instanceof Tuple && b instanceof Tuple)) {
    for (let index = 0; index < Math.min(a.items.length, b.items.length); index++) {
      if (!equals(a.items[index]!, b.items[index]!)) return compare(a.items[index]!, b.items[index]!);
    }
    return a.items.length - b.items.length;
  }
  throw new TemplateError(`${typeName(a)} and ${typeName(b)} have no order`);
}

/** By code points, where JavaScript compares UTF-16 units. */
function compareText(a: string, b: string): number {
  if (a === b) return 0;
  const [x, y] = [[...a], [...b]];
  for (let index = 0; index < Math.min(x.length, y.length); index++) {
    const difference = x[index]!.codePointAt(0)! - y[index]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return x.length - y.length;
}

/** `item in container`. */
export function contains(container: Value, item: Value): boolean {
  if (container instanceof Markup) container = container.text;
  if (typeof container === "string") {
    if (item instanceof Markup) return container.includes(item.text);
    if (typeof item !== "string") throw new TemplateError(`${typeName(item)} is searched in a string`);
    return container.includes(item);
  }
  if (container instanceof Dict) return container.has(item);
  if (container instanceof DictView && container.kind === "keys") return container.dict.has(item);
  return iterate(container).some((one) => one === item || equals(one, item));
}
