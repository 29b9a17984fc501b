/** Python's operators on the values of a template. */
import type { Budget } from "./budget.ts";
import { TemplateError, unsupported } from "./errors.ts";
import { percentFormat } from "./text_format.ts";
import {
  asInteger,
  asNumber,
  Dict,
  equals,
  iterate,
  List,
  Markup,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** Bits of an integer, beyond which no template counts. */
const MAX_INTEGER_BITS = 4096;

function wrong(operator: string, left: Value, right: Value): TemplateError {
  return new TemplateError(`"${operator}" gets ${typeName(left)} and ${typeName(right)}`);
}

function checkInteger(value: bigint): bigint {
  if (value.toString(16).length * 4 > MAX_INTEGER_BITS) throw new TemplateError("an integer grows too large");
  return value;
}

export function binary(operator: string, left: Value, right: Value, budget: Budget): Value {
  for (const value of [left, right]) {
    if (value instanceof Undefined) throw value.fail();
    if (value instanceof Markup) throw unsupported(`"${operator}" with safe text`);
  }
  const [x, y] = [asNumber(left), asNumber(right)];
  if (x !== undefined && y !== undefined) return arithmetic(operator, x, y);
  if (operator === "+") {
    if (typeof left === "string" && typeof right === "string") {
      budget.spend(left.length + right.length);
      return left + right;
    }
    if (left instanceof List && right instanceof List || left instanceof Tuple && right instanceof Tuple) {
      budget.spend(left.items.length + right.items.length);
      const items = [...left.items, ...right.items];
      return left instanceof List ? new List(items) : new Tuple(items);
    }
  }
  if (operator === "*") {
    if (x !== undefined) return repeat(right, asInteger(left), budget);
    if (y !== undefined) return repeat(left, asInteger(right), budget);
  }
  if (operator === "%" && typeof left === "string") return budget.text(percentFormat(left, right));
  throw wrong(operator, left, right);
}

function repeat(value: Value, count: number, budget: Budget): Value {
  const times = Math.max(0, count);
  if (typeof value === "string") {
    budget.spend(value.length * times);
    return value.repeat(times);
  }
  if (!(value instanceof List || value instanceof Tuple)) throw wrong("*", value, BigInt(count));
  budget.spend(value.items.length * times);
  const items = Array.from({ length: times }, () => value.items).flat();
  return value instanceof List ? new List(items) : new Tuple(items);
}

function arithmetic(operator: string, x: bigint | number, y: bigint | number): Value {
  if (operator === "/") {
    if (Number(y) === 0) throw new TemplateError("division by zero");
    return Number(x) / Number(y);
  }
  if (typeof x === "bigint" && typeof y === "bigint") return integers(operator, x, y);
  return floats(operator, Number(x), Number(y));
}

function integers(operator: string, x: bigint, y: bigint): Value {
  switch (operator) {
    case "+":
      return checkInteger(x + y);
    case "-":
      return checkInteger(x - y);
    case "*":
      return checkInteger(x * y);
    case "//":
    case "%": {
      if (y === 0n) throw new TemplateError("division by zero");
      const rest = x % y;
      const shifts = rest !== 0n && rest < 0n !== y < 0n;
      return operator === "%" ? (shifts ? rest + y : rest) : x / y - (shifts ? 1n : 0n);
    }
    default:
      if (y < 0n) {
        if (x === 0n) throw new TemplateError("zero has no negative power");
        return Number(x) ** Number(y);
      }
      if (BigInt(x.toString(2).length) * y > BigInt(MAX_INTEGER_BITS)) {
        if (x < -1n || x > 1n) throw new TemplateError("an integer grows too large");
      }
      return x ** y;
  }
}

function floats(operator: string, x: number, y: number): Value {
  switch (operator) {
    case "+":
      return x + y;
    case "-":
      return x - y;
    case "*":
      return x * y;
    case "//":
    case "%": {
      if (y === 0) throw new TemplateError("division by zero");
      let rest = x % y;
      if (rest !== 0 && rest < 0 !== y < 0) rest += y;
      if (operator === "%") return rest === 0 ? (y < 0 ? -0 : 0) : rest;
      const quotient = (x - rest) / y;
      const floor = Math.floor(quotient);
      return quotient - floor > 0.5 ? floor + 1 : floor;
    }
    default:
      if (x < 0 && !Number.isInteger(y)) throw unsupported("complex numbers");
      if (x === 0 && y < 0) throw new TemplateError("zero has no negative power");
      return checkFinite(x, y, x ** y);
  }
}

function checkFinite(x: number, y: number, result: number): number {
  if (Number.isFinite(x) && Number.isFinite(y) && !Number.isFinite(result)) {
    throw new TemplateError("a power is too large");
  }
  return result;
}

export function negate(value: Value): Value {
  if (value instanceof Undefined) throw value.fail();
  const number = asNumber(value);
  if (number === undefined) throw new TemplateError(`"-" gets ${typeName(value)}`);
  return -number;
}

/** `value[start:stop:step]`; parts are integers or undefined. */
export function slice(value: Value, parts: readonly (number | undefined)[], budget: Budget): Value {
  const [start, stop, step = 1] = parts;
  if (step === 0) throw new TemplateError("a slice has the step 0");
  if (value instanceof Undefined) throw value.fail();
  if (value instanceof Markup || value instanceof Range) throw unsupported(`a slice of ${typeName(value)}`);
  if (!(typeof value === "string" || value instanceof List || value instanceof Tuple)) {
    throw new TemplateError(`${typeName(value)} is sliced`);
  }
  const items = iterate(value);
  const picked = indices(items.length, start, stop, step).map((index) => items[index]!);
  budget.spend(items.length + picked.length);
  if (typeof value === "string") return picked.join("");
  return value instanceof List ? new List(picked) : new Tuple(picked);
}

function indices(length: number, start: number | undefined, stop: number | undefined, step: number): number[] {
  const [low, high] = step > 0 ? [0, length] : [-1, length - 1];
  const place = (index: number | undefined, fallback: number): number =>
    index === undefined ? fallback : Math.min(high, Math.max(low, index < 0 ? index + length : index));
  const first = place(start, step > 0 ? low : high);
  const last = place(stop, step > 0 ? high : low);
  const out: number[] = [];
  for (let index = first; step > 0 ? index < last : index > last; index += step) out.push(index);
  return out;
}

/** `value[index]`, or undefined where Python raises LookupError, which Jinja turns into an undefined value. */
export function itemOf(value: Value, index: Value): Value | undefined {
  if (value instanceof Dict) {
    if (index instanceof List || index instanceof Dict) return undefined;
    return value.get(index);
  }
  const number = asNumber(index);
  if (typeof number !== "bigint") return undefined;
  if (typeof value === "string") return [...value].at(Number(number));
  if (value instanceof List || value instanceof Tuple || value instanceof Range) return value.items.at(Number(number));
  return undefined;
}

/** Whether two values are one object, where Python's answer does not depend on how it keeps them. */
export function isSame(left: Value, right: Value): boolean {
  if (left === right && (typeof left !== "bigint" || left >= -5n && left <= 256n)) {
    if (typeof left === "object" || typeof left === "boolean" || typeof left === "bigint") return true;
  }
  if (typeof left !== typeof right || typeof left === "boolean" || left === null || right === null) return false;
  if (typeof left === "object") return left === right;
  if (!equals(left, right)) return false;
  throw unsupported("the test sameas of equal numbers or strings");
}
