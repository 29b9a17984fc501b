/** Jinja's filters: `value | name`. */
import { Bound } from "./arguments.ts";
import type { Budget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { toJson } from "./json.ts";
import { binary } from "./operators.ts";
import { capitalize, center, replaceText, splitLines, strip } from "./strings.ts";
import { runTest } from "./tests.ts";
import { percentFormat, roundHalfEven } from "./text_format.ts";
import {
  type Arguments,
  asInteger,
  asNumber,
  asString,
  compare,
  Dict,
  Generator,
  given,
  isTrue,
  iterate,
  length,
  List,
  Markup,
  toText,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** What a filter may ask of the interpreter. */
export interface FilterContext {
  budget: Budget;
  /** `value.name` or `value[name]`, as `map(attribute=...)` looks members up. */
  item: (value: Value, key: Value) => Value;
}

type Filter = (value: Value, call: Arguments, context: FilterContext) => Value;

/** The text of a value for the filters that take any value. */
function textOf(value: Value): string {
  if (value instanceof Markup) throw unsupported("a text filter on safe text");
  return toText(value);
}

/** Reads `attribute="a.b.0"`. */
function member(value: Value, path: Value, { item }: FilterContext): Value {
  if (typeof path !== "string") return item(value, path);
  return path.split(".").reduce<Value>((one, key) => item(one, /^\d+$/.test(key) ? BigInt(key) : key), value);
}

/** What values are ordered and compared by: text in lower case, unless case counts. */
function foldCase(value: Value, caseSensitive: boolean): Value {
  return typeof value === "string" && !caseSensitive ? value.toLowerCase() : value;
}

function keyOf(bound: Bound, context: FilterContext): (value: Value) => Value {
  const path = bound.value("attribute") ?? null;
  const caseSensitive = bound.flag("case_sensitive", false);
  return (value) => foldCase(path === null ? value : member(value, path, context), caseSensitive);
}

function checkOrder(value: Value): Value {
  if (value instanceof Undefined) throw value.fail();
  return value;
}

function sorted(items: readonly Value[], key: (value: Value) => Value, reverse: boolean, budget: Budget): Value[] {
  budget.spend(items.length);
  const keyed = items.map((item) => ({ item, key: checkOrder(key(item)) }));
  // Python keeps the order of equal items, also in reverse.
  keyed.sort((a, b) => {
    budget.step();
    return reverse ? compare(b.key, a.key) : compare(a.key, b.key);
  });
  return keyed.map(({ item }) => item);
}

function sort(value: Value, call: Arguments, context: FilterContext): Value {
  const bound = new Bound("sort", call, ["reverse", "case_sensitive", "attribute"]);
  const path = bound.value("attribute") ?? null;
  if (typeof path === "string" && path.includes(",")) throw unsupported("several attributes in sort");
  return new List(sorted(iterate(value), keyOf(bound, context), bound.flag("reverse", false), context.budget));
}

function extreme(name: "min" | "max"): Filter {
  return (value, call, context) => {
    const key = keyOf(new Bound(name, call, ["case_sensitive", "attribute"]), context);
    const items = iterate(value);
    let best: Value | undefined;
    for (const item of items) {
      if (best === undefined) best = item;
      else {
        const order = compare(checkOrder(key(item)), checkOrder(key(best)));
        if (name === "min" ? order < 0 : order > 0) best = item;
      }
    }
    return given(best, new Undefined("the extreme of nothing"));
  };
}

function dictSort(value: Value, call: Arguments, { budget }: FilterContext): Value {
  if (!(value instanceof Dict)) throw new TemplateError(`dictsort gets ${typeName(value)}`);
  const bound = new Bound("dictsort", call, ["case_sensitive", "by", "reverse"]);
  const by = bound.string("by", "key");
  if (by !== "key" && by !== "value") throw new TemplateError('dictsort sorts by "key" or "value"');
  const caseSensitive = bound.flag("case_sensitive", false);
  const pairs = value.entries().map((entry) => new Tuple(entry));
  const key = (pair: Value): Value => foldCase((pair as Tuple).items[by === "key" ? 0 : 1]!, caseSensitive);
  return new List(sorted(pairs, key, bound.flag("reverse", false), budget));
}

/** `select`, `reject` and their `attr` forms. */
function selector(name: string, keeps: boolean, byAttribute: boolean): Filter {
  return (value, { args, kwargs }, context) => {
    const path = byAttribute ? args[0] : undefined;
    if (byAttribute && path === undefined) throw new TemplateError(`${name} needs the name of an attribute`);
    const [test, ...rest] = byAttribute ? args.slice(1) : args;
    const items = iterate(value);
    context.budget.spend(items.length);
    const passes = (item: Value): boolean => {
      const subject = path === undefined ? item : member(item, path, context);
      if (test === undefined) return isTrue(subject);
      return runTest(asString(test), subject, { args: rest, kwargs }, { budget: context.budget, isFilter });
    };
    return new Generator(items.filter((item) => passes(item) === keeps));
  };
}

function map(value: Value, { args, kwargs }: Arguments, context: FilterContext): Value {
  const items = iterate(value);
  context.budget.spend(items.length);
  if (args.length === 0 && kwargs.has("attribute")) {
    const bound = new Bound("map", { args, kwargs }, ["attribute", "default"]);
    const [path, fallback] = [bound.value("attribute")!, bound.value("default")];
    return new Generator(items.map((item) => {
      const found = member(item, path, context);
      return found instanceof Undefined && fallback !== undefined ? fallback : found;
    }));
  }
  const [name, ...rest] = args;
  if (name === undefined) throw new TemplateError("map needs the name of a filter or an attribute");
  return new Generator(items.map((item) => runFilter(asString(name), item, { args: rest, kwargs }, context)));
}

function join(value: Value, call: Arguments, context: FilterContext): Value {
  const bound = new Bound("join", call, ["d", "attribute"]);
  const separator = textOf(given(bound.value("d"), ""));
  const path = bound.value("attribute") ?? null;
  const texts = iterate(value).map((item) => textOf(path === null ? item : member(item, path, context)));
  context.budget.spend(texts.reduce((sum, text) => sum + text.length + separator.length, 0));
  return texts.join(separator);
}

function sum(value: Value, call: Arguments, context: FilterContext): Value {
  const bound = new Bound("sum", call, ["attribute", "start"]);
  const path = bound.value("attribute") ?? null;
  const items = iterate(value).map((item) => path === null ? item : member(item, path, context));
  const start = given(bound.value("start"), 0n);
  if (typeof start === "string") throw new TemplateError("sum starts with a string");
  return items.reduce<Value>((total, item) => binary("+", total, item, context.budget), start);
}

function unique(value: Value, call: Arguments, context: FilterContext): Value {
  const key = keyOf(new Bound("unique", call, ["case_sensitive", "attribute"]), context);
  const seen = new Dict();
  return new Generator(
    iterate(value).filter((item) => {
      const one = key(item);
      if (seen.has(one)) return false;
      seen.set(one, true);
      return true;
    }),
  );
}

function batch(value: Value, call: Arguments, { budget }: FilterContext): Value {
  const bound = new Bound("batch", call, ["linecount", "fill_with"], 1);
  const [size, fill] = [bound.integer("linecount", 1), bound.value("fill_with") ?? null];
  if (size < 1) throw unsupported("batch with less than one item per line");
  const items = iterate(value);
  budget.spend(items.length + size);
  const lines: Value[][] = [];
  for (let start = 0; start < items.length; start += size) lines.push(items.slice(start, start + size));
  const last = lines.at(-1);
  while (fill !== null && last && last.length < size) last.push(fill);
  return new Generator(lines.map((line) => new List(line)));
}

function slices(value: Value, call: Arguments, { budget }: FilterContext): Value {
  const bound = new Bound("slice", call, ["slices", "fill_with"], 1);
  const [count, fill] = [bound.integer("slices", 1), bound.value("fill_with") ?? null];
  if (count < 1) throw unsupported("slice into less than one part");
  const items = iterate(value);
  budget.spend(items.length + count);
  const [size, extra] = [Math.floor(items.length / count), items.length % count];
  let start = 0;
  return new Generator(Array.from({ length: count }, (_, index) => {
    const part = items.slice(start, start += size + (index < extra ? 1 : 0));
    if (fill !== null && index >= extra) part.push(fill);
    return new List(part);
  }));
}

function indent(value: Value, call: Arguments, { budget }: FilterContext): Value {
  const bound = new Bound("indent", call, ["width", "first", "blank"]);
  const width = given(bound.value("width"), 4n);
  const size = typeof width === "string" ? width.length : Math.max(0, asInteger(width));
  // Jinja adds a line end first, so that an empty last line is a line.
  const lines = splitLines(`${textOf(value)}\n`);
  budget.spend(lines.reduce((total, line) => total + line.length + size + 1, size));
  const space = typeof width === "string" ? width : " ".repeat(size);
  const [first = "", ...rest] = lines;
  const blank = bound.flag("blank", false);
  const text = [first, ...rest.map((line) => line !== "" || blank ? space + line : line)].join("\n");
  return bound.flag("first", false) ? space + text : text;
}

function title(text: string): string {
  return text.split(/([-\s({[<]+)/u).map((part) => {
    const [first = "", ...rest] = [...part];
    return first.toUpperCase() + rest.join("").toLowerCase();
  }).join("");
}

const INTEGERS: Readonly<Record<number, RegExp>> = {
  2: /^[-+]?(?:0[bB]_?)?[01]+(?:_[01]+)*$/,
  8: /^[-+]?(?:0[oO]_?)?[0-7]+(?:_[0-7]+)*$/,
  10: /^[-+]?\d+(?:_\d+)*$/,
  16: /^[-+]?(?:0[xX]_?)?[\da-fA-F]+(?:_[\da-fA-F]+)*$/,
};

function parseInteger(text: string, base: number): bigint | undefined {
  const pattern = INTEGERS[base];
  if (!pattern) throw unsupported(`the base ${base} of int`);
  const digits = strip(text, undefined);
  if (!pattern.test(digits)) {
    // deno-lint-ignore no-control-regex
    if (!/^[\x00-\x7f]*$/.test(digits)) throw unsupported("int of digits beyond ASCII");
    return undefined;
  }
  const magnitude = digits.replace(/^[-+]/, "").replaceAll("_", "");
  const prefix = { 2: "0b", 8: "0o", 10: "", 16: "0x" }[base]!;
  const bare = prefix !== "" && magnitude.toLowerCase().startsWith(prefix) ? magnitude.slice(2) : magnitude;
  const number = BigInt(prefix + bare);
  return digits.startsWith("-") ? -number : number;
}

function parseFloatText(text: string): number | undefined {
  const digits = strip(text, undefined);
  if (/^[-+]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][-+]?\d+(?:_\d+)*)?$/.test(digits)) {
    return Number(digits.replaceAll("_", ""));
  }
  const word = /^([-+]?)(inf|infinity|nan)$/i.exec(digits);
  if (!word) return undefined;
  return word[2]!.toLowerCase() === "nan" ? NaN : word[1] === "-" ? -Infinity : Infinity;
}

function int(value: Value, call: Arguments): Value {
  const bound = new Bound("int", call, ["default", "base"]);
  const fallback = given(bound.value("default"), 0n);
  if (value instanceof Undefined) throw value.fail();
  let number: bigint | number | undefined;
  if (typeof value === "string") number = parseInteger(value, bound.integer("base", 10)) ?? parseFloatText(value);
  else number = asNumber(value);
  if (number === undefined || Number.isNaN(number)) return fallback;
  if (typeof number === "bigint") return number;
  if (!Number.isFinite(number)) throw new TemplateError("infinity cannot be an integer");
  return BigInt(Math.trunc(number));
}

function float(value: Value, call: Arguments): Value {
  const fallback = given(new Bound("float", call, ["default"]).value("default"), 0);
  if (value instanceof Undefined) throw value.fail();
  const number = typeof value === "string" ? parseFloatText(value) : asNumber(value);
  return number === undefined ? fallback : Number(number);
}

function round(value: Value, call: Arguments): Value {
  const bound = new Bound("round", call, ["precision", "method"]);
  const [precision, method] = [bound.integer("precision", 0), bound.string("method", "common")];
  const number = value instanceof Undefined ? undefined : asNumber(value);
  if (number === undefined) throw new TemplateError(`round gets ${typeName(value)}`);
  if (!["common", "ceil", "floor"].includes(method)) throw new TemplateError(`round has no method "${method}"`);
  if (precision < 0 || precision > 15) throw unsupported(`the precision ${precision} of round`);
  if (method !== "common") {
    const scaled = Number(number) * 10 ** precision;
    return (method === "ceil" ? Math.ceil(scaled) : Math.floor(scaled)) / 10 ** precision;
  }
  if (typeof number === "bigint") return number;
  if (!Number.isFinite(number) || Math.abs(number) >= 1e15) return number;
  const rounded = Number(roundHalfEven(Math.abs(number), precision));
  return number < 0 || Object.is(number, -0) ? -rounded : rounded;
}

function first(value: Value): Value {
  if (value instanceof Generator) return given(value.next(), new Undefined("the first of nothing"));
  return given(iterate(value)[0], new Undefined("the first of nothing"));
}

function last(value: Value): Value {
  if (value instanceof Generator) throw new TemplateError("last gets a generator");
  return given(iterate(value).at(-1), new Undefined("the last of nothing"));
}

function reverse(value: Value, _: Arguments, { budget }: FilterContext): Value {
  if (value instanceof Markup) throw unsupported("reverse on safe text");
  const items = iterate(value);
  budget.spend(items.length);
  const reversed = items.toReversed();
  return typeof value === "string" ? reversed.join("") : new Generator(reversed);
}

function byText(work: (text: string) => Value): Filter {
  return (value, call, { budget }) => {
    new Bound("the filter", call, []);
    return work(budget.text(textOf(value)));
  };
}

const FILTERS: Readonly<Record<string, Filter>> = {
  abs: (value) => {
    const number = value instanceof Undefined ? undefined : asNumber(value);
    if (number === undefined) throw new TemplateError(`abs gets ${typeName(value)}`);
    return number < 0 || Object.is(number, -0) ? -number : number;
  },
  batch,
  capitalize: byText(capitalize),
  center: (value, call, { budget }) =>
    center(textOf(value), new Bound("center", call, ["width"]).integer("width", 80), " ", budget),
  default: (value, call) => {
    const bound = new Bound("default", call, ["default_value", "boolean"]);
    const replaces = value instanceof Undefined || bound.flag("boolean", false) && !isTrue(value);
    return replaces ? given(bound.value("default_value"), "") : value;
  },
  dictsort: dictSort,
  first,
  float,
  format: (value, { args, kwargs }, { budget }) => {
    if (kwargs.size > 0 && args.length > 0) throw new TemplateError("format gets positional and named values");
    const values = kwargs.size > 0 ? Dict.of(kwargs) : new Tuple(args);
    return budget.text(percentFormat(textOf(value), values));
  },
  indent,
  int,
  items: (value) => {
    if (value instanceof Undefined) return new Generator([]);
    if (!(value instanceof Dict)) throw new TemplateError(`items gets ${typeName(value)}`);
    return new Generator(value.entries().map((entry) => new Tuple(entry)));
  },
  join,
  last,
  length: (value) => BigInt(length(value)),
  list: (value, _, { budget }) => {
    const items = iterate(value);
    budget.spend(items.length);
    return new List([...items]);
  },
  lower: byText((text) => text.toLowerCase()),
  map,
  max: extreme("max"),
  min: extreme("min"),
  reject: selector("reject", false, false),
  rejectattr: selector("rejectattr", false, true),
  replace: (value, call, { budget }) => {
    const bound = new Bound("replace", call, ["old", "new", "count"], 2);
    const count = (bound.value("count") ?? null) === null ? -1 : bound.integer("count", -1);
    return replaceText(textOf(value), textOf(bound.value("old")!), textOf(bound.value("new")!), count, budget);
  },
  reverse,
  round,
  safe: (value) => value instanceof Markup ? value : new Markup(toText(value)),
  select: selector("select", true, false),
  selectattr: selector("selectattr", true, true),
  slice: slices,
  sort,
  string: (value) => value instanceof Markup ? value : toText(value),
  sum,
  title: byText(title),
  tojson: (value, call, { budget }) => {
    if (value instanceof Undefined) throw value.fail();
    return toJson(value, call, budget);
  },
  trim: (value, call, { budget }) =>
    strip(budget.text(textOf(value)), new Bound("trim", call, ["chars"]).optionalString("chars")),
  unique,
  upper: byText((text) => text.toUpperCase()),
  wordcount: byText((text) => BigInt([...text.matchAll(/[\p{L}\p{N}_]+/gu)].length)),
};
const ALIASES: Readonly<Record<string, string>> = { count: "length", d: "default" };
/** Filters of Jinja that no chat template needs. */
const OTHERS = new Set(
  ("attr e escape filesizeformat forceescape groupby pprint random striptags truncate urlencode urlize wordwrap xmlattr")
    .split(" "),
);

export function isFilter(name: string): boolean {
  return Object.hasOwn(FILTERS, name) || Object.hasOwn(ALIASES, name) || OTHERS.has(name);
}

export function runFilter(name: string, value: Value, call: Arguments, context: FilterContext): Value {
  context.budget.step();
  const filter = isFilter(name) ? FILTERS[Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name] : undefined;
  if (!filter) {
    throw isFilter(name) ? unsupported(`the filter "${name}"`) : new TemplateError(`the filter "${name}" is unknown`);
  }
  return filter(value, call, context);
}
