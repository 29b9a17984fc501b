/** What Jinja and transformers define for every template. */
import { Bound } from "./arguments.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { Scope } from "./interpreter.ts";
import { strftime } from "./strftime.ts";
import {
  type Arguments,
  asInteger,
  asString,
  Callable,
  Dict,
  given,
  iterate,
  Namespace,
  Range,
  toText,
  type Value,
} from "./values.ts";

/** Entries of a dictionary from one dictionary or list of pairs and named values. */
function entriesOf(name: string, { args, kwargs }: Arguments): [Value, Value][] {
  if (args.length > 1) throw new TemplateError(`${name}() takes one argument beside named ones`);
  const [first] = args;
  const given = first === undefined
    ? []
    : first instanceof Dict
    ? first.entries()
    : iterate(first).map((pair): [Value, Value] => {
      const items = iterate(pair);
      if (items.length !== 2) throw new TemplateError(`${name}() gets an item that is no pair`);
      return [items[0]!, items[1]!];
    });
  return [...given, ...kwargs];
}

function range({ args, kwargs }: Arguments): Value {
  if (kwargs.size > 0 || args.length < 1 || args.length > 3) {
    throw new TemplateError("range() takes one to three numbers");
  }
  const [first = 0, second, step = 1] = args.map(asInteger);
  return second === undefined ? new Range(0, first, 1) : new Range(first, second, step);
}

function cycler({ args, kwargs }: Arguments): Value {
  if (args.length === 0 || kwargs.size > 0) throw new TemplateError("cycler() gets no items");
  let at = 0;
  return new Callable("a cycler", undefined, (name) => {
    if (name === "current") return args[at]!;
    if (name === "next") {
      return new Callable("next", () => {
        const item = args[at]!;
        at = (at + 1) % args.length;
        return item;
      });
    }
    if (name === "reset") {
      return new Callable("reset", () => {
        at = 0;
        return null;
      });
    }
    return undefined;
  });
}

function joiner(call: Arguments): Value {
  const separator = given(new Bound("joiner", call, ["sep"]).value("sep"), ", ");
  let used = false;
  return new Callable("a joiner", () => {
    if (used) return separator;
    used = true;
    return "";
  });
}

/** The scope that every template sees. `refuse` is called with the reason that a template gives for refusing a conversation. */
export function globalScope(refuse: (reason: string) => never, now: () => Date = () => new Date()): Scope {
  const scope = new Scope();
  const define = (name: string, run: (call: Arguments) => Value): void =>
    scope.set(name, new Callable(`${name}()`, run));
  define("range", range);
  define("dict", (call) => Dict.of(entriesOf("dict", call)));
  define("namespace", (call) => {
    const namespace = new Namespace();
    for (const [key, value] of entriesOf("namespace", call)) namespace.set(asString(key), value);
    return namespace;
  });
  define("cycler", cycler);
  define("joiner", joiner);
  define("lipsum", () => {
    throw unsupported("lipsum()");
  });
  define(
    "raise_exception",
    (call) => refuse(toText(new Bound("raise_exception", call, ["message"], 1).value("message")!)),
  );
  define(
    "strftime_now",
    (call) => strftime(now(), asString(new Bound("strftime_now", call, ["format"], 1).value("format")!)),
  );
  scope.set("self", new Callable('"self"', undefined));
  return scope;
}
