/** `json.dumps` as transformers calls it in `tojson`. */
import { Bound } from "./arguments.ts";
import type { Budget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import {
  type Arguments,
  compare,
  Dict,
  floatText,
  iterate,
  List,
  Markup,
  Tuple,
  typeName,
  type Value,
} from "./values.ts";

interface JsonStyle {
  ascii: boolean;
  indent: string | undefined;
  itemSeparator: string;
  keySeparator: string;
  sortKeys: boolean;
}

export function toJson(value: Value, call: Arguments, budget: Budget): string {
  const bound = new Bound("tojson", call, ["ensure_ascii", "indent", "separators", "sort_keys"]);
  const indentValue = bound.value("indent") ?? null;
  const indent = typeof indentValue === "string"
    ? indentValue
    : indentValue === null
    ? undefined
    : " ".repeat(budgeted(bound.integer("indent", 0), budget));
  const separators = bound.value("separators") ?? null;
  const [itemSeparator, keySeparator] = separators === null
    ? [indent === undefined ? ", " : ",", ": "]
    : iterate(separators);
  if (typeof itemSeparator !== "string" || typeof keySeparator !== "string") {
    throw new TemplateError("the separators of tojson are no strings");
  }
  const ascii = bound.flag("ensure_ascii", false);
  const style = { ascii, indent, itemSeparator, keySeparator, sortKeys: bound.flag("sort_keys", false) };
  return dump(value, style, "\n", budget);
}

/** A width, paid for before text of it is made. */
function budgeted(width: number, budget: Budget): number {
  budget.spend(Math.max(0, width));
  return Math.max(0, width);
}

function dump(value: Value, style: JsonStyle, newline: string, budget: Budget): string {
  budget.spend(2);
  if (value === null) return "null";
  switch (typeof value) {
    case "string":
      return budget.text(quoted(value, style.ascii));
    case "boolean":
    case "bigint":
      return String(value);
    case "number":
      return floatJson(value);
  }
  const inner = style.indent === undefined ? newline : newline + style.indent;
  const wrap = (open: string, items: readonly string[], close: string): string => {
    if (items.length === 0) return open + close;
    if (style.indent === undefined) return open + budget.text(items.join(style.itemSeparator)) + close;
    return open + inner + budget.text(items.join(style.itemSeparator + inner)) + newline + close;
  };
  if (value instanceof List || value instanceof Tuple) {
    return wrap("[", value.items.map((item) => dump(item, style, inner, budget)), "]");
  }
  if (value instanceof Dict) {
    const entries = value.entries();
    if (style.sortKeys) entries.sort(([a], [b]) => compare(a, b));
    const items = entries.map(([key, item]) =>
      quoted(keyText(key), style.ascii) + style.keySeparator + dump(item, style, inner, budget)
    );
    return wrap("{", items, "}");
  }
  if (value instanceof Markup) throw unsupported("safe text in tojson");
  throw new TemplateError(`tojson gets ${typeName(value)}`);
}

function floatJson(value: number): string {
  if (Number.isFinite(value)) return floatText(value);
  return Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

function keyText(key: Value): string {
  if (typeof key === "string") return key;
  if (key === null) return "null";
  if (typeof key === "boolean" || typeof key === "bigint") return String(key);
  if (typeof key === "number") return floatJson(key);
  throw new TemplateError(`tojson gets a dictionary with ${typeName(key)} as a key`);
}

/** JSON.stringify escapes what Python does; lone surrogates, which it escapes as well, cannot occur in a text of ours. */
function quoted(text: string, ascii: boolean): string {
  const json = JSON.stringify(text);
  if (!ascii) return json;
  return json.replace(
    /[\x7f-\uffff]/g,
    (unit) => unit === "\x7f" ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
