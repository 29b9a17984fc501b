/** Methods of Python strings. */
import { Bound } from "./arguments.ts";
import type { Budget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { PYTHON_SPACE } from "./lexer.ts";
import { braceFormat } from "./text_format.ts";
import { type Arguments, asString, codePoints, iterate, List, Tuple, typeName, type Value } from "./values.ts";

const SPACE = new RegExp(`[${PYTHON_SPACE}]`);
// deno-lint-ignore no-control-regex
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;
/** Letters that have a title case of their own. */
const TITLE: Readonly<Record<string, string>> = Object.fromEntries(
  ["Ǆǅǆ", "Ǉǈǉ", "Ǌǋǌ", "Ǳǲǳ"].flatMap((group) => [...group].slice(0, 3).map((letter) => [letter, [...group][1]!])),
);

function titleCase(character: string): string {
  const known = TITLE[character];
  if (known !== undefined) return known;
  const [first = "", ...rest] = [...character.toUpperCase()];
  return first + rest.join("").toLowerCase();
}

/** `strip` and its halves; `characters` undefined is white space. */
export function strip(text: string, characters: string | undefined, sides: "both" | "left" | "right" = "both"): string {
  const list = [...text];
  const set = characters === undefined ? undefined : new Set(characters);
  const matches = (character: string): boolean => set ? set.has(character) : SPACE.test(character);
  let [start, end] = [0, list.length];
  if (sides !== "right") { while (start < end && matches(list[start]!)) start++; }
  if (sides !== "left") { while (end > start && matches(list[end - 1]!)) end--; }
  return list.slice(start, end).join("");
}

export function capitalize(text: string): string {
  const [first = "", ...rest] = [...text];
  return titleCase(first) + rest.join("").toLowerCase();
}

export function splitLines(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  let start = 0;
  for (const end of text.matchAll(LINE_END)) {
    lines.push(text.slice(start, end.index + (keepEnds ? end[0].length : 0)));
    start = end.index + end[0].length;
  }
  if (start < text.length) lines.push(text.slice(start));
  return lines;
}

/** Pads to `width` code points on both sides as Python divides them. */
export function center(text: string, width: number, fill: string, budget: Budget): string {
  const missing = Math.max(0, width - codePoints(text));
  budget.spend(missing);
  const left = Math.floor(missing / 2) + (missing & width & 1);
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

/** `replace`: `count` below 0 replaces all. */
export function replaceText(text: string, old: string, fresh: string, count: number, budget: Budget): string {
  if (old === "") {
    const list = [...text];
    const places = count < 0 ? list.length + 1 : Math.min(count, list.length + 1);
    budget.spend(text.length + places * fresh.length);
    let out = "";
    for (let index = 0; index <= list.length; index++) out += (index < places ? fresh : "") + (list[index] ?? "");
    return out;
  }
  const parts = text.split(old);
  const places = count < 0 ? parts.length - 1 : Math.min(count, parts.length - 1);
  budget.spend(text.length + places * fresh.length);
  return parts.slice(0, places + 1).join(fresh) + parts.slice(places + 1).map((part) => old + part).join("");
}

const WORD = new RegExp(`[^${PYTHON_SPACE}]+`, "g");

function splitSpace(text: string, most: number, fromRight: boolean): string[] {
  if (fromRight && most >= 0) return rightSplit(text, most);
  const parts: string[] = [];
  for (const word of text.matchAll(WORD)) {
    if (parts.length === most) {
      parts.push(strip(text.slice(word.index), undefined, "right"));
      break;
    }
    parts.push(word[0]);
  }
  return parts;
}

function rightSplit(text: string, most: number): string[] {
  const reverse = (one: string): string => [...one].reverse().join("");
  return splitSpace(reverse(text), most, false).map(reverse).reverse();
}

function split(text: string, { args, kwargs }: Arguments, fromRight: boolean, budget: Budget): List {
  const bound = new Bound("split", { args, kwargs }, ["sep", "maxsplit"]);
  const [separator, most] = [bound.optionalString("sep"), bound.integer("maxsplit", -1)];
  budget.spend(2 * text.length);
  if (separator === undefined) return new List(splitSpace(text, most, fromRight));
  if (separator === "") throw new TemplateError("a string is split at an empty separator");
  const parts = text.split(separator);
  if (most >= 0 && parts.length > most + 1) {
    const extra = parts.length - most;
    if (fromRight) parts.splice(0, extra, parts.slice(0, extra).join(separator));
    else parts.splice(most, extra, parts.slice(most).join(separator));
  }
  return new List(parts);
}

function ends(text: string, name: "startsWith" | "endsWith", call: Arguments): boolean {
  const bound = new Bound(name.toLowerCase(), call, ["prefix", "start", "end"], 1);
  const wanted = bound.value("prefix")!;
  const options = wanted instanceof Tuple ? wanted.items.map(asString) : [asString(wanted)];
  const list = bound.has("start") || bound.has("end") ? [...text] : undefined;
  if (
    list && (bound.integer("start", 0) > list.length || bound.integer("start", 0) < 0 || bound.integer("end", 0) < 0)
  ) {
    throw unsupported(`a place outside the text in ${name.toLowerCase()}()`);
  }
  const part = list ? list.slice(bound.integer("start", 0), bound.integer("end", list.length)).join("") : text;
  return options.some((option) => part[name](option));
}

/** Code points before the first or last place of a text, -1 where it is not. */
function find(text: string, call: Arguments, last: boolean): bigint {
  const bound = new Bound("find", call, ["sub", "start", "end"], 1);
  bound.refuse("find()", "start", "end");
  const wanted = asString(bound.value("sub")!);
  const at = last ? text.lastIndexOf(wanted) : text.indexOf(wanted);
  return at < 0 ? -1n : BigInt(codePoints(text.slice(0, at)));
}

function count(text: string, call: Arguments): bigint {
  const bound = new Bound("count", call, ["sub", "start", "end"], 1);
  bound.refuse("count()", "start", "end");
  const wanted = asString(bound.value("sub")!);
  return BigInt(wanted === "" ? codePoints(text) + 1 : text.split(wanted).length - 1);
}

function partition(text: string, call: Arguments, last: boolean): Tuple {
  const separator = asString(new Bound("partition", call, ["sep"], 1).value("sep")!);
  if (separator === "") throw new TemplateError("a string is divided at an empty separator");
  const at = last ? text.lastIndexOf(separator) : text.indexOf(separator);
  if (at < 0) return new Tuple(last ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)]);
}

function justify(text: string, call: Arguments, name: string, budget: Budget): string {
  const bound = new Bound(name, call, ["width", "fill"], 1);
  const [width, fill] = [bound.integer("width", 0), bound.string("fill", " ")];
  if (codePoints(fill) !== 1) throw new TemplateError(`${name}() fills with one character`);
  if (name === "center") return center(text, width, fill, budget);
  const missing = Math.max(0, width - codePoints(text));
  budget.spend(missing);
  return name === "ljust" ? text + fill.repeat(missing) : fill.repeat(missing) + text;
}

function join(separator: string, call: Arguments, budget: Budget): string {
  const items = iterate(new Bound("join", call, ["items"], 1).value("items")!);
  const texts = items.map((item) => {
    if (typeof item !== "string") throw new TemplateError(`join() gets ${typeName(item)}, expected strings`);
    return item;
  });
  budget.spend(texts.reduce((sum, text) => sum + text.length + separator.length, 0));
  return texts.join(separator);
}

function swapCase(text: string): string {
  return [...text].map((one) => /\p{Lu}/u.test(one) ? one.toLowerCase() : /\p{Ll}/u.test(one) ? one.toUpperCase() : one)
    .join("");
}

export function titleWords(text: string): string {
  let inWord = false;
  return [...text].map((one) => {
    const out = inWord ? one.toLowerCase() : titleCase(one);
    inWord = /\p{Cased}/u.test(one);
    return out;
  }).join("");
}

export function isLower(text: string): boolean {
  return /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
}

export function isUpper(text: string): boolean {
  return /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);
}

function removeEnd(text: string, call: Arguments, name: "removeprefix" | "removesuffix"): string {
  const wanted = asString(new Bound(name, call, ["text"], 1).value("text")!);
  if (name === "removeprefix") return text.startsWith(wanted) ? text.slice(wanted.length) : text;
  return wanted !== "" && text.endsWith(wanted) ? text.slice(0, -wanted.length) : text;
}

function expandTabs(text: string, size: number, budget: Budget): string {
  let column = 0;
  let out = "";
  for (const one of text) {
    if (one === "\t") {
      const spaces = size > 0 ? size - column % size : 0;
      budget.spend(spaces);
      out += " ".repeat(spaces);
      column += spaces;
    } else {
      out += one;
      column = one === "\n" || one === "\r" ? 0 : column + 1;
    }
  }
  return out;
}

function zeroFill(text: string, width: number, budget: Budget): string {
  const sign = /^[-+]/.test(text) ? text[0]! : "";
  const missing = Math.max(0, width - codePoints(text));
  budget.spend(missing);
  return sign + "0".repeat(missing) + text.slice(sign.length);
}

const NO_ARGUMENTS: Readonly<Record<string, (text: string) => Value>> = {
  capitalize,
  casefold: (text) => {
    // deno-lint-ignore no-control-regex
    if (!/^[\x00-\x7f]*$/.test(text)) throw unsupported("casefold() of letters beyond ASCII");
    return text.toLowerCase();
  },
  isalnum: (text) => /^[\p{L}\p{N}]+$/u.test(text),
  isalpha: (text) => /^\p{L}+$/u.test(text),
  // deno-lint-ignore no-control-regex
  isascii: (text) => /^[\x00-\x7f]*$/.test(text),
  isdecimal: (text) => /^\p{Nd}+$/u.test(text),
  isdigit: (text) => /^[\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒]+$/u.test(text),
  islower: isLower,
  isspace: (text) => text !== "" && strip(text, undefined) === "",
  isupper: isUpper,
  lower: (text) => text.toLowerCase(),
  swapcase: swapCase,
  title: titleWords,
  upper: (text) => text.toUpperCase(),
};

/** Methods that Python strings have and that no template of a chat needs. */
const OTHERS = new Set("encode format_map isidentifier isnumeric isprintable istitle maketrans translate".split(" "));

/** The method of this name of a text, or undefined where Python has none. */
export function stringMethod(text: string, name: string, budget: Budget): ((call: Arguments) => Value) | undefined {
  const plain = Object.hasOwn(NO_ARGUMENTS, name) ? NO_ARGUMENTS[name] : undefined;
  if (plain) {
    return (call) => {
      new Bound(name, call, []);
      budget.spend(text.length);
      return plain(text);
    };
  }
  if (OTHERS.has(name)) throw unsupported(`the method "${name}" of strings`);
  const stripped = (sides: "both" | "left" | "right") => (call: Arguments) =>
    strip(budget.text(text), new Bound(name, call, ["characters"]).optionalString("characters"), sides);
  switch (name) {
    case "strip":
      return stripped("both");
    case "lstrip":
      return stripped("left");
    case "rstrip":
      return stripped("right");
    case "split":
      return (call) => split(text, call, false, budget);
    case "rsplit":
      return (call) => split(text, call, true, budget);
    case "splitlines":
      return (call) => {
        budget.spend(2 * text.length);
        return new List(splitLines(text, new Bound(name, call, ["keepends"]).flag("keepends", false)));
      };
    case "replace":
      return (call) => {
        const bound = new Bound(name, call, ["old", "new", "count"], 2);
        return replaceText(text, bound.string("old", ""), bound.string("new", ""), bound.integer("count", -1), budget);
      };
    case "startswith":
      return (call) => ends(text, "startsWith", call);
    case "endswith":
      return (call) => ends(text, "endsWith", call);
    case "find":
    case "rfind":
      return (call) => find(text, call, name === "rfind");
    case "index":
    case "rindex":
      return (call) => {
        const at = find(text, call, name === "rindex");
        if (at < 0n) throw new TemplateError(`${name}() finds nothing`);
        return at;
      };
    case "count":
      return (call) => count(text, call);
    case "partition":
    case "rpartition":
      return (call) => partition(text, call, name === "rpartition");
    case "center":
    case "ljust":
    case "rjust":
      return (call) => justify(text, call, name, budget);
    case "join":
      return (call) => join(text, call, budget);
    case "removeprefix":
    case "removesuffix":
      return (call) => removeEnd(text, call, name);
    case "expandtabs":
      return (call) => expandTabs(text, new Bound(name, call, ["tabsize"]).integer("tabsize", 8), budget);
    case "zfill":
      return (call) => zeroFill(text, new Bound(name, call, ["width"], 1).integer("width", 0), budget);
    case "format":
      return (call) => budget.text(braceFormat(text, call));
  }
}
