/** Runs a template: statements in their order, with Jinja's scopes and Python's values. */
import { type Budget, withBudget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { isFilter, runFilter } from "./filters.ts";
import { LoopState } from "./loop.ts";
import { memberOf } from "./members.ts";
import { binary, itemOf, negate, slice } from "./operators.ts";
import type { Call, Expression, Macro, Statement, Target } from "./tree.ts";
import { isTest, runTest } from "./tests.ts";
import {
  type Arguments,
  asInteger,
  asNumber,
  Callable,
  compare,
  contains,
  Dict,
  equals,
  given,
  isTrue,
  iterate,
  List,
  Namespace,
  toText,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** Calls of macros and recursive loops inside each other. */
const MAX_CALLS = 100;

/** Names and their values; inner scopes see outer ones, and outer scopes nothing of inner ones. */
export class Scope {
  readonly #names = new Map<string, Value>();

  constructor(readonly parent?: Scope) {}

  get(name: string): Value | undefined {
    return this.#names.has(name) ? this.#names.get(name) : this.parent?.get(name);
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

class LoopControl {
  constructor(readonly kind: "break" | "continue") {}
}

/** Runs statements. Output goes to one list of texts. */
export class Interpreter {
  #calls = 0;

  constructor(readonly budget: Budget) {}

  /** The text of a template. @throws {TemplateError} */
  render(body: readonly Statement[], globals: Scope): string {
    const out: string[] = [];
    withBudget(this.budget, () => this.#run(body, new Scope(globals), out));
    return out.join("");
  }

  #run(body: readonly Statement[], scope: Scope, out: string[]): void {
    for (const statement of body) {
      this.budget.step();
      this.#statement(statement, scope, out);
    }
  }

  #captured(body: readonly Statement[], scope: Scope): string {
    const out: string[] = [];
    this.#run(body, new Scope(scope), out);
    return this.budget.text(out.join(""));
  }

  #statement(statement: Statement, scope: Scope, out: string[]): void {
    switch (statement.type) {
      case "text":
        out.push(this.budget.text(statement.text));
        return;
      case "output":
        out.push(this.budget.text(toText(this.#value(statement.value, scope))));
        return;
      case "if": {
        const branch = statement.branches.find(([test]) => isTrue(this.#value(test, scope)));
        return this.#run(branch ? branch[1] : statement.otherwise, scope, out);
      }
      case "for":
        return this.#for(statement, scope, out);
      case "set":
        return this.#assign(statement.target, this.#value(statement.value, scope), scope);
      case "capture": {
        const text = this.#captured(statement.body, scope);
        const value = statement.filter ? this.#filtered(statement.filter, text, scope) : text;
        return this.#assign(statement.target, value, scope);
      }
      case "with": {
        const inner = new Scope(scope);
        const values = statement.values.map(([target, value]) => [target, this.#value(value, scope)] as const);
        for (const [target, value] of values) this.#assign(target, value, inner);
        return this.#run(statement.body, inner, out);
      }
      case "macro":
        return scope.set(statement.macro.name, this.#macro(statement.macro, scope));
      case "callblock": {
        const call = this.#arguments(statement.of.call, scope);
        call.kwargs.set("caller", this.#macro(statement.caller, scope));
        out.push(this.budget.text(toText(this.#call(this.#value(statement.of.of, scope), call))));
        return;
      }
      case "filterblock":
        out.push(
          this.budget.text(toText(this.#filtered(statement.filter, this.#captured(statement.body, scope), scope))),
        );
        return;
      case "generation":
        out.push(this.#captured(statement.body, scope));
        return;
      default:
        throw new LoopControl(statement.type);
    }
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === "name") return scope.set(target.name, value);
    if (target.type === "member") {
      const namespace = scope.get(target.namespace);
      if (namespace instanceof Namespace) return namespace.set(target.name, value);
      throw new TemplateError(`"${target.namespace}.${target.name}" is set, but "${target.namespace}" is no namespace`);
    }
    const items = iterate(value);
    if (items.length !== target.items.length) {
      throw new TemplateError(`${items.length} values are assigned to ${target.items.length} names`);
    }
    target.items.forEach((one, index) => this.#assign(one, items[index]!, scope));
  }

  #for(statement: Statement & { type: "for" }, scope: Scope, out: string[]): void {
    const loop = (over: Value, depth: number, to: string[]): void => {
      const all = iterate(over);
      this.budget.spend(all.length);
      const items = statement.test === undefined ? all : all.filter((item) => {
        const inner = new Scope(scope);
        this.#assign(statement.target, item, inner);
        return isTrue(this.#value(statement.test!, inner));
      });
      const again = !statement.recursive ? undefined : (next: Value): Value => {
        const inner: string[] = [];
        this.#deeper(() => loop(next, depth + 1, inner));
        return this.budget.text(inner.join(""));
      };
      const state = new LoopState(items, depth, again);
      for (const [index, item] of items.entries()) {
        const inner = new Scope(scope);
        state.index = index;
        inner.set("loop", state.value);
        this.#assign(statement.target, item, inner);
        try {
          this.#run(statement.body, inner, to);
        } catch (control) {
          if (!(control instanceof LoopControl)) throw control;
          if (control.kind === "break") break;
        }
      }
      if (items.length === 0) this.#run(statement.otherwise, new Scope(scope), to);
    };
    loop(this.#value(statement.of, scope), 0, out);
  }

  #deeper<T>(work: () => T): T {
    if (++this.#calls > MAX_CALLS) throw new TemplateError("it calls itself too often");
    try {
      return work();
    } finally {
      this.#calls--;
    }
  }

  #macro({ name, parameters, body, uses }: Macro, scope: Scope): Callable {
    return new Callable(`the macro "${name}"`, ({ args, kwargs }) => {
      const inner = new Scope(scope);
      const named = new Map(kwargs);
      parameters.forEach((parameter, index) => {
        let value: Value | undefined = args[index];
        if (value !== undefined && named.has(parameter.name)) {
          throw new TemplateError(`the macro "${name}" gets "${parameter.name}" twice`);
        }
        if (value === undefined) value = named.get(parameter.name);
        named.delete(parameter.name);
        if (value === undefined) {
          value = parameter.fallback
            ? this.#value(parameter.fallback, inner)
            : new Undefined(`the parameter "${parameter.name}"`);
        }
        inner.set(parameter.name, value);
      });
      if (uses.has("caller")) inner.set("caller", named.get("caller") ?? new Undefined("the caller"));
      else if (named.has("caller")) throw new TemplateError(`the macro "${name}" takes no caller`);
      named.delete("caller");
      if (uses.has("varargs")) inner.set("varargs", new Tuple(args.slice(parameters.length)));
      else if (args.length > parameters.length) throw new TemplateError(`the macro "${name}" gets too many arguments`);
      if (uses.has("kwargs")) inner.set("kwargs", Dict.of(named));
      else if (named.size > 0) {
        throw new TemplateError(`the macro "${name}" has no parameter "${[...named.keys()][0]}"`);
      }
      return this.#deeper(() => this.#captured(body, inner));
    }, (member) => {
      if (["name", "arguments", "catch_kwargs", "catch_varargs", "caller", "defaults"].includes(member)) {
        throw unsupported(`the member "${member}" of a macro`);
      }
      return undefined;
    });
  }

  #filtered(filter: Expression, text: string, scope: Scope): Value {
    if (filter.type !== "filter") throw new TemplateError("a filter is missing");
    const value = filter.of === undefined ? text : this.#filtered(filter.of, text, scope);
    return this.#filter(filter.name, value, this.#arguments(filter.call, scope));
  }

  #filter(name: string, value: Value, call: Arguments): Value {
    return runFilter(name, value, call, { budget: this.budget, item: (of, key) => this.#item(of, key) });
  }

  #arguments({ args, kwargs, spread, kwspread }: Call, scope: Scope): Arguments {
    const values = args.map((value) => this.#value(value, scope));
    const named = new Map(kwargs.map(([name, value]) => [name, this.#value(value, scope)]));
    if (spread) values.push(...iterate(this.#value(spread, scope)));
    if (kwspread) {
      const more = this.#value(kwspread, scope);
      if (!(more instanceof Dict)) throw new TemplateError(`**arguments get ${typeName(more)}`);
      for (const [key, value] of more.entries()) {
        if (typeof key !== "string" || named.has(key)) {
          throw new TemplateError("**arguments have a key that does not fit");
        }
        named.set(key, value);
      }
    }
    return { args: values, kwargs: named };
  }

  #value(node: Expression, scope: Scope): Value {
    this.budget.step();
    switch (node.type) {
      case "constant":
        return node.value;
      case "name":
        return given(scope.get(node.name), new Undefined(`"${node.name}"`));
      case "list":
        this.budget.spend(node.items.length);
        return new List(node.items.map((item) => this.#value(item, scope)));
      case "tuple":
        this.budget.spend(node.items.length);
        return new Tuple(node.items.map((item) => this.#value(item, scope)));
      case "dict":
        this.budget.spend(node.entries.length);
        return Dict.of(
          node.entries.map(([key, value]) => [this.#value(key, scope), this.#value(value, scope)] as const),
        );
      case "attribute":
        return this.#attribute(this.#value(node.of, scope), node.name);
      case "item": {
        const of = this.#value(node.of, scope);
        if (node.index.type === "slice") return this.#slice(of, node.index.parts, scope);
        return this.#item(of, this.#value(node.index, scope));
      }
      case "call":
        return this.#call(this.#value(node.of, scope), this.#arguments(node.call, scope));
      case "filter":
        return this.#filter(node.name, this.#value(node.of!, scope), this.#arguments(node.call, scope));
      case "test": {
        const value = this.#value(node.of, scope);
        const context = { budget: this.budget, isFilter };
        return runTest(node.name, value, this.#arguments(node.call, scope), context) !== node.negated;
      }
      case "not":
        return !isTrue(this.#value(node.of, scope));
      case "negative":
        return negate(this.#value(node.of, scope));
      case "positive":
        return this.#positive(this.#value(node.of, scope));
      case "and": {
        const left = this.#value(node.left, scope);
        return isTrue(left) ? this.#value(node.right, scope) : left;
      }
      case "or": {
        const left = this.#value(node.left, scope);
        return isTrue(left) ? left : this.#value(node.right, scope);
      }
      case "binary":
        return binary(node.operator, this.#value(node.left, scope), this.#value(node.right, scope), this.budget);
      case "concat":
        return this.budget.text(node.items.map((item) => toText(this.#value(item, scope))).join(""));
      case "compare":
        return this.#compare(node, scope);
      case "condition":
        if (isTrue(this.#value(node.test, scope))) return this.#value(node.then, scope);
        return node.otherwise ? this.#value(node.otherwise, scope) : new Undefined("a condition without else");
      case "slice":
        throw new TemplateError("a slice stands outside an index");
    }
  }

  #positive(value: Value): Value {
    if (value instanceof Undefined) throw value.fail();
    const number = asNumber(value);
    if (number === undefined) throw new TemplateError(`"+" gets ${typeName(value)}`);
    return number;
  }

  #compare({ first, rest }: Expression & { type: "compare" }, scope: Scope): Value {
    let left = this.#value(first, scope);
    for (const [operator, node] of rest) {
      const right = this.#value(node, scope);
      if (!holds(operator, left, right)) return false;
      left = right;
    }
    return true;
  }

  #slice(of: Value, parts: readonly (Expression | undefined)[], scope: Scope): Value {
    const numbers = parts.map((part) => {
      const value = part && this.#value(part, scope);
      return value === undefined || value === null ? undefined : asInteger(value);
    });
    return slice(of, numbers, this.budget);
  }

  /** `value.name`: a member of the type first, then an item. */
  #attribute(value: Value, name: string): Value {
    if (value instanceof Undefined) throw value.fail();
    const found = memberOf(value, name, this.budget);
    const missing = new Undefined(`"${name}" of ${typeName(value)}`);
    return found === undefined ? given(itemOf(value, name), missing) : found;
  }

  /** `value[index]`: an item first, then a member of the type. */
  #item(value: Value, index: Value): Value {
    if (value instanceof Undefined) throw value.fail();
    const item = itemOf(value, index);
    if (item !== undefined) return item;
    const member = typeof index === "string" ? memberOf(value, index, this.budget) : undefined;
    return given(member, new Undefined(`an item of ${typeName(value)}`));
  }

  #call(callable: Value, call: Arguments): Value {
    if (callable instanceof Undefined) throw callable.fail();
    if (!(callable instanceof Callable) || !callable.run) throw new TemplateError(`${typeName(callable)} is called`);
    return callable.run(call);
  }
}

function holds(operator: string, left: Value, right: Value): boolean {
  switch (operator) {
    case "==":
      return equals(left, right);
    case "!=":
      return !equals(left, right);
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
  }
  for (const value of [left, right]) if (value instanceof Undefined) throw value.fail();
  const order = compare(left, right);
  return operator === "<" ? order < 0 : operator === "<=" ? order <= 0 : operator === ">" ? order > 0 : order >= 0;
}

/** Names of filters and tests that Jinja does not know, wherever they stand. @throws {TemplateError} */
export function checkNames(body: unknown): void {
  const stack: unknown[] = [body];
  while (stack.length > 0) {
    const node = stack.pop();
    if (typeof node !== "object" || node === null) continue;
    const { type, name } = node as { type?: unknown; name?: unknown };
    if (type === "filter" && typeof name === "string" && !isFilter(name)) {
      throw new TemplateError(`the filter "${name}" is unknown`);
    }
    if (type === "test" && typeof name === "string" && !isTest(name)) {
      throw new TemplateError(`the test "${name}" is unknown`);
    }
    for (const value of Object.values(node)) stack.push(value);
  }
}
