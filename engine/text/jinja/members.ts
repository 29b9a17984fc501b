/** Members of values: the methods of Python's types, as far as Jinja's sandbox lets a template use them. */
import { Bound } from "./arguments.ts";
import type { Budget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { stringMethod } from "./strings.ts";
import {
  type Arguments,
  asNumber,
  Callable,
  Dict,
  DictView,
  equals,
  given,
  List,
  Markup,
  Namespace,
  Range,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** Members of Python's types that change them, which Jinja's sandbox refuses. */
const CHANGING = new Set("append clear extend insert pop popitem remove reverse setdefault sort update".split(" "));
/** Members of Python's numbers. */
const NUMBER_MEMBERS = new Set(
  "real imag numerator denominator conjugate bit_length bit_count to_bytes from_bytes as_integer_ratio is_integer hex fromhex"
    .split(" "),
);

/** What Python's `getattr` gives, or undefined. */
export function memberOf(value: Value, name: string, budget: Budget): Value | undefined {
  if (value instanceof Namespace) return value.members.get(name);
  if (value instanceof Callable) return value.member(name);
  // The sandbox hides these; whatever is done with them fails.
  if (name.startsWith("_")) return new Undefined(`the hidden member "${name}"`);
  if (value instanceof Markup) throw unsupported(`the member "${name}" of safe text`);
  if (typeof value === "string") {
    const run = stringMethod(value, name, budget);
    return run && new Callable(`the method "${name}"`, run);
  }
  if (asNumber(value) !== undefined && NUMBER_MEMBERS.has(name)) throw unsupported(`the member "${name}" of numbers`);
  if ((value instanceof List || value instanceof Dict) && CHANGING.has(name)) {
    if (
      value instanceof Dict
        ? !["append", "extend", "insert", "remove", "reverse", "sort"].includes(name)
        : !["popitem", "setdefault", "update"].includes(name)
    ) {
      return new Undefined(`the method "${name}", which changes its object and is not allowed,`);
    }
  }
  if (value instanceof Dict) return dictMethod(value, name, budget);
  if (value instanceof List || value instanceof Tuple) return listMethod(value, name, budget);
  if (value instanceof Range && ["start", "stop", "step"].includes(name)) {
    return BigInt(value[name as "start" | "stop" | "step"]);
  }
  return undefined;
}

function dictMethod(dict: Dict, name: string, budget: Budget): Value | undefined {
  const method = (run: (call: Arguments) => Value): Callable => new Callable(`the method "${name}"`, run);
  switch (name) {
    case "keys":
    case "values":
    case "items":
      return method((call) => {
        new Bound(name, call, []);
        return new DictView(name, dict);
      });
    case "get":
      return method((call) => {
        const bound = new Bound(name, { args: call.args, kwargs: call.kwargs }, ["key", "default"], 1);
        if (call.kwargs.size > 0) throw new TemplateError("get takes no named arguments");
        return given(dict.get(bound.value("key")!), given(bound.value("default"), null));
      });
    case "copy":
      return method((call) => {
        new Bound(name, call, []);
        budget.spend(dict.size);
        return Dict.of(dict.entries());
      });
    case "fromkeys":
      throw unsupported('the method "fromkeys"');
  }
  return undefined;
}

function listMethod(list: List | Tuple, name: string, budget: Budget): Value | undefined {
  if (name === "copy" && list instanceof List) {
    return new Callable("copy", () => {
      budget.spend(list.items.length);
      return new List([...list.items]);
    });
  }
  if (name !== "count" && name !== "index") return undefined;
  return new Callable(`the method "${name}"`, (call) => {
    const wanted = new Bound(name, call, ["value"], 1).value("value")!;
    if (name === "count") return BigInt(list.items.filter((item) => equals(item, wanted)).length);
    const at = list.items.findIndex((item) => equals(item, wanted));
    if (at < 0) throw new TemplateError("index() finds nothing");
    return BigInt(at);
  });
}
