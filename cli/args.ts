import { PagesiftError } from "../engine/errors.ts";
import type { Option, OptionTable, Values } from "./options/option.ts";
import { didYouMean } from "./suggest.ts";

/** What is a path and hardly ever a prompt. */
const PATH = /^(\/|\.\.?\/|~\/)/;

/** A parsed command line: the value of every option of the table, and the words that are not options. */
export interface ParsedArguments<T extends OptionTable> {
  values: Values<T>;
  positional: string[];
}

/**
 * Parses a command line against its option table and refuses unknown options.
 * Values are `--flag value` or `--flag=value`, `--` ends the options, and the last of repeated flags wins.
 */
export function parseArguments<T extends OptionTable>(table: T, args: readonly string[]): ParsedArguments<T> {
  const names = optionNames(table);
  const values = Object.fromEntries(Object.entries(table).map(([name, option]) => [name, option.fallback]));
  const positional: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i]!;
    if (word === "--") {
      positional.push(...args.slice(i + 1));
      break;
    }
    if (!looksLikeOption(word)) {
      positional.push(word);
      continue;
    }
    const [flag, attached] = splitAtEquals(word);
    const name = names.get(flag);
    if (name === undefined) throw unknownOption(flag, [...names.keys()]);
    const option: Option<unknown> = table[name]!;
    if (option.optionalValue === "attached" && attached === undefined) checkDetached(flag, args[i + 1]);
    const takesNext = attached === undefined &&
      (option.optionalValue ? takesPath(option, args[i + 1]) : option.placeholder !== undefined);
    const text = takesNext ? nextValue(args[++i], flag, option, names) : attached;
    values[name] = option.parse(checkedValue(text, flag, option), flag, values[name]);
  }
  return { values: values as Values<T>, positional };
}

function optionNames(table: OptionTable): Map<string, string> {
  return new Map(Object.entries(table).flatMap(([name, option]) => option.flags.map((flag) => [flag, name] as const)));
}

function takesPath({ optionalValue }: Option<unknown>, next = ""): boolean {
  return optionalValue === "path" && PATH.test(next);
}

/** A number behind a flag whose value is attached is hardly ever a prompt. */
function checkDetached(flag: string, next = ""): void {
  if (!/^\d+$/.test(next)) return;
  throw new PagesiftError(
    "usage",
    `${flag} takes its value attached: write ${flag}=${next}, or -p ${next} for a prompt`,
  );
}

/** A lone dash means stdin, and a word with a space after its dashes is text. */
function looksLikeOption(word: string): boolean {
  return /^--?[^\s-]/.test(word) && !/^-\d/.test(word);
}

function splitAtEquals(word: string): [string, string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

/** Text that begins with a dash may be a value (`--temp -1`, `-p "- one"`), unless it reads as the next option. */
function nextValue(
  next: string | undefined,
  flag: string,
  option: Option<unknown>,
  names: Map<string, string>,
): string {
  const isOption = next === "--" ||
    next !== undefined && (names.has(splitAtEquals(next)[0]) || /^--[a-z-]+(=|$)/.test(next));
  if (next !== undefined && !isOption) return next;
  const hint = isOption ? `; write ${flag}=${next} if "${next}" is the value` : "";
  throw new PagesiftError("usage", `${flag} requires a value: ${flag} ${option.placeholder}${hint}`);
}

function checkedValue(text: string | undefined, flag: string, option: Option<unknown>): string {
  if (text !== undefined && option.placeholder === undefined) {
    throw new PagesiftError("usage", `${flag} takes no value, found "${text}"`);
  }
  return text ?? "";
}

function unknownOption(flag: string, known: readonly string[]): PagesiftError {
  const suggestion = didYouMean(flag, known);
  return new PagesiftError("usage", `Unknown option "${flag}"${suggestion || "; --help lists all options"}`);
}
