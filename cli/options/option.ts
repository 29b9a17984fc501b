import { PagesiftError } from "../../engine/errors.ts";

/** One row of a command's option table: the parser, the defaults and `--help` all come from it. */
export interface Option<V> {
  /** Every spelling, the short ones first: `["-n", "--max-tokens"]`. The last one names the option in messages. */
  readonly flags: readonly string[];
  /** Heading under which `--help` lists the option. */
  readonly group: string;
  /** Name of the value in help, such as `N` or `FILE`; undefined for a switch. */
  readonly placeholder?: string;
  /**
   * The flag may stand alone. Its value is attached, `--flag=VALUE`; that of a `"path"` may also be the next word if that is
   * unmistakably a path.
   */
  readonly optionalValue?: "path" | "attached";
  /** The legal values, if there are only a few; completions offer them. */
  readonly choices?: readonly string[];
  readonly help: string;
  /** Value when the option is not given. */
  readonly fallback: V;
  /** Text that `--help` shows as the default instead of the fallback; `""` shows none. */
  readonly fallbackText?: string;
  /** The flag may be given several times. */
  readonly repeats?: boolean;
  /** Turns the text after the flag into a value; `previous` is the value so far, for flags that may be repeated. */
  parse(text: string, flag: string, previous: V): V;
}

/** Options by the name that the command reads them under. */
// deno-lint-ignore no-explicit-any -- a table mixes value types; `Values` recovers each of them
export type OptionTable = Readonly<Record<string, Option<any>>>;

/** The values of a table, each with the type of its option. */
export type Values<T extends OptionTable> = { -readonly [K in keyof T]: T[K] extends Option<infer V> ? V : never };

/** The description that every kind of option requires. */
export interface OptionText {
  flags: readonly string[];
  group: string;
  help: string;
  placeholder?: string;
  fallbackText?: string;
}

/** Legal values of a number, ends included unless `above` is set. */
export interface Range {
  min?: number;
  max?: number;
  /** `min` itself is not legal. */
  above?: boolean;
}

const LARGEST_COUNT = 2 ** 31 - 1;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const SIZE = /^(\d+\.?\d*)\s*([KMGT]?B)?$/i;
const UNIT_BYTES: Readonly<Record<string, number>> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
const TOKEN_COUNT = /^([+-]?\d+)(k?)$/i;

/** A flag without a value. */
export function switchOption(text: OptionText): Option<boolean> {
  return { ...text, fallback: false, fallbackText: "", parse: () => true };
}

/** A flag with any text as its value. */
export function textOption<F extends string | undefined>(text: OptionText & { fallback: F }): Option<string | F> {
  return { placeholder: "TEXT", ...text, parse: (value) => value };
}

/** A flag that may be followed by a path. Its value is `""` for the flag alone. */
export function optionalPathOption(text: OptionText): Option<string | undefined> {
  return { placeholder: "DIR", ...text, optionalValue: "path", fallback: undefined, parse: (value) => value };
}

/** A flag that may have a whole number attached, `--flag=N`, and has the value `alone` without one. */
export function optionalCountOption(
  { alone, ...text }: OptionText & { range: Range; alone: number },
): Option<number | undefined> {
  const { parse, ...option } = countOption({ ...text, fallback: undefined });
  const parseOptional = (value: string, flag: string): number | undefined =>
    value === "" ? alone : parse(value, flag, undefined);
  return { ...option, optionalValue: "attached", fallbackText: "", parse: parseOptional };
}

/** A flag with a number of bytes as its value: `500MB`, `20GB`, `1.5TB`, or a plain number. */
export function sizeOption(text: OptionText & { fallback: number }): Option<number> {
  const parse = (value: string, flag: string): number => {
    const [, digits, unit = ""] = SIZE.exec(value) ?? [];
    if (digits === undefined) throw unusable(flag, value, "expected a size such as 500MB, 20GB or 1TB");
    return Math.floor(Number(digits) * (UNIT_BYTES[unit.toUpperCase()] ?? 1));
  };
  return { placeholder: "SIZE", ...text, parse };
}

/** A flag that may be given several times. */
export function listOption(text: OptionText, convert: (value: string) => string = (value) => value): Option<string[]> {
  const help = `${text.help} (may be repeated)`;
  const parse = (value: string, _: string, previous: string[]): string[] => [...previous, convert(value)];
  return { placeholder: "TEXT", ...text, help, repeats: true, fallback: [], fallbackText: "", parse };
}

/** A flag with numbers of devices, separated by commas. */
export function deviceListOption(text: OptionText): Option<readonly number[]> {
  const parse = (value: string, flag: string): readonly number[] => {
    const numbers = value.split(",").map((item) => /^\d{1,4}$/.test(item) ? Number(item) : -1);
    if (numbers.includes(-1) || new Set(numbers).size < numbers.length) {
      throw unusable(flag, value, "expected different numbers of devices, such as 0,1");
    }
    return numbers;
  };
  return { ...text, fallback: [], parse };
}

/** A flag whose value is one of a few words. */
export function choiceOption<C extends string, F extends C | undefined>(
  text: OptionText & { choices: readonly C[]; fallback: F },
): Option<C | F> {
  const parse = (value: string, flag: string): C => {
    const choice = text.choices.find((each) => each === value);
    if (choice === undefined) throw unusable(flag, value, `expected ${listWords(text.choices)}`);
    return choice;
  };
  return { placeholder: text.choices.join("|"), ...text, parse };
}

/** A flag with a decimal number as its value. */
export function numberOption<F extends number | undefined>(
  text: OptionText & { range: Range; fallback: F },
): Option<number | F> {
  const parse = (value: string, flag: string): number => {
    if (!NUMBER.test(value)) throw unusable(flag, value, `expected ${describeRange("number", text.range)}`);
    return checkRange(flag, value, Number(value), "number", text.range);
  };
  return { placeholder: "X", ...text, parse };
}

/** A flag with a whole number as its value. */
export function countOption<F extends number | undefined>(
  text: OptionText & { range: Range; fallback: F },
): Option<number | F> {
  const parse = (value: string, flag: string): number => {
    if (!NUMBER.test(value)) throw unusable(flag, value, `expected ${describeRange("whole number", text.range)}`);
    return checkRange(flag, value, Number(value), "whole number", text.range);
  };
  return { placeholder: "N", ...text, parse };
}

/** A flag that counts tokens: `32k` and `32K` both mean 32 x 1024, since contexts and pages are powers of two. */
export function tokenCountOption<F extends number | undefined>(
  text: OptionText & { range: Range; fallback: F },
): Option<number | F> {
  const parse = (value: string, flag: string): number => {
    const [, digits, suffix] = TOKEN_COUNT.exec(value) ?? [];
    if (digits === undefined) {
      throw unusable(flag, value, `expected ${describeRange("whole number", text.range)}, or a count such as 32k`);
    }
    return checkRange(flag, value, Number(digits) * (suffix ? 1024 : 1), "whole number", text.range);
  };
  return { placeholder: "N", ...text, parse };
}

/** One of a few whole numbers, such as the page sizes that the kernels support. */
export function numberChoiceOption<F extends number | undefined>(
  text: OptionText & { choices: readonly number[]; fallback: F },
): Option<number | F> {
  const parse = (value: string, flag: string): number => {
    const choice = text.choices.find((each) => String(each) === value);
    if (choice === undefined) throw unusable(flag, value, `expected ${listWords(text.choices.map(String))}`);
    return choice;
  };
  return { placeholder: text.choices.join("|"), ...text, choices: text.choices.map(String), parse };
}

/** Describes a range, as in "a number above 0 and up to 1". */
export function describeRange(noun: string, range: Range): string {
  const { min, max, above } = range;
  const from = min === undefined
    ? ""
    : above
    ? ` above ${min}`
    : max === undefined
    ? ` of ${min} or more`
    : ` from ${min}`;
  const to = max === undefined ? "" : above ? ` and up to ${max}` : ` to ${max}`;
  return `a ${noun}${from}${to}`;
}

function checkRange(flag: string, text: string, value: number, noun: string, range: Range): number {
  const { min = -Infinity, max = noun === "number" ? Number.MAX_VALUE : LARGEST_COUNT, above } = range;
  const whole = noun === "number" || Number.isInteger(value);
  if (whole && value <= max && (above ? value > min : value >= min)) return value;
  throw new PagesiftError("usage", `${flag} ${text} is out of range: expected ${describeRange(noun, range)}`);
}

function unusable(flag: string, value: string, expected: string): PagesiftError {
  return new PagesiftError("usage", `${flag} "${value}" is invalid: ${expected}`);
}

function listWords(words: readonly string[]): string {
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}
