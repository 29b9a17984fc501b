/** Jinja's tests: `value is name`. */
import type { Arguments, Value } from "./values.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { binary, isSame } from "./operators.ts";
import type { Budget } from "./budget.ts";
import { isLower, isUpper } from "./strings.ts";
import {
  asNumber,
  Callable,
  compare,
  contains,
  Dict,
  DictView,
  equals,
  isIterable,
  List,
  Markup,
  Range,
  toText,
  Tuple,
  Undefined,
} from "./values.ts";

/** What a test may ask of the interpreter. */
export interface TestContext {
  budget: Budget;
  isFilter: (name: string) => boolean;
}

type Test = (value: Value, args: readonly Value[], context: TestContext) => boolean;

function remainder(value: Value, divisor: Value, { budget }: TestContext): Value {
  return binary("%", value, divisor, budget);
}

function ordered(value: Value, other: Value | undefined, decide: (order: number) => boolean): boolean {
  for (const one of [value, other!]) if (one instanceof Undefined) throw one.fail();
  return decide(compare(value, other!));
}

/** Tests, with the number of arguments that they take. */
const TESTS: Readonly<Record<string, [args: number, test: Test]>> = {
  boolean: [0, (value) => typeof value === "boolean"],
  callable: [0, (value) => value instanceof Undefined || value instanceof Callable && value.run !== undefined],
  defined: [0, (value) => !(value instanceof Undefined)],
  divisibleby: [1, (value, [by], context) => equals(remainder(value, by!, context), 0n)],
  eq: [1, (value, [other]) => equals(value, other!)],
  even: [0, (value, _, context) => equals(remainder(value, 2n, context), 0n)],
  false: [0, (value) => value === false],
  filter: [0, (value, _, context) => typeof value === "string" && context.isFilter(value)],
  float: [0, (value) => typeof value === "number"],
  ge: [1, (value, [other]) => ordered(value, other, (order) => order >= 0)],
  gt: [1, (value, [other]) => ordered(value, other, (order) => order > 0)],
  in: [1, (value, [container]) => contains(container!, value)],
  integer: [0, (value) => typeof value === "bigint"],
  iterable: [0, isIterable],
  le: [1, (value, [other]) => ordered(value, other, (order) => order <= 0)],
  lower: [0, (value) => isLower(toText(value))],
  lt: [1, (value, [other]) => ordered(value, other, (order) => order < 0)],
  mapping: [0, (value) => value instanceof Dict],
  ne: [1, (value, [other]) => !equals(value, other!)],
  none: [0, (value) => value === null],
  number: [0, (value) => asNumber(value) !== undefined],
  odd: [0, (value, _, context) => equals(remainder(value, 2n, context), 1n)],
  sameas: [1, (value, [other]) => isSame(value, other!)],
  sequence: [
    0,
    (value) =>
      typeof value === "string" || value instanceof Markup || value instanceof List || value instanceof Tuple ||
      value instanceof Dict || value instanceof Range || value instanceof Undefined,
  ],
  string: [0, (value) => typeof value === "string" || value instanceof Markup],
  test: [0, (value) => typeof value === "string" && isTest(value)],
  true: [0, (value) => value === true],
  undefined: [0, (value) => value instanceof Undefined],
  upper: [0, (value) => isUpper(toText(value))],
};
const ALIASES: Readonly<Record<string, string>> = {
  ...{ "==": "eq", equalto: "eq", "!=": "ne", ">": "gt", greaterthan: "gt", ">=": "ge" },
  ...{ "<": "lt", lessthan: "lt", "<=": "le" },
};

export function isTest(name: string): boolean {
  return Object.hasOwn(TESTS, name) || Object.hasOwn(ALIASES, name) || name === "escaped";
}

export function runTest(name: string, value: Value, { args, kwargs }: Arguments, context: TestContext): boolean {
  const known = TESTS[Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name];
  if (!known || !isTest(name)) {
    throw isTest(name) ? unsupported(`the test "${name}"`) : new TemplateError(`the test "${name}" is unknown`);
  }
  const [count, test] = known;
  if (kwargs.size > 0) throw unsupported(`a named argument of the test "${name}"`);
  if (args.length !== count) {
    throw new TemplateError(`the test "${name}" takes ${count} arguments, found ${args.length}`);
  }
  if (value instanceof DictView && name === "sequence") return false;
  return test(value, args, context);
}
