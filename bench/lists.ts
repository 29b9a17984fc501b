/** Lists of settings from a command line. */
import { PagesiftError } from "../engine/errors.ts";

const COUNT = /^(\d+)([km]?)$/i;
const FACTORS: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2 };

/** The error for a setting that cannot be measured. */
export function usageError(message: string): PagesiftError {
  return new PagesiftError("usage", message);
}

/**
 * Parses `4k,32k` into numbers, each once, in this order. k is 1,024, m 1,048,576. @throws {PagesiftError} of kind
 * "usage"
 */
export function parseCounts(flag: string, text: string, least: number): number[] {
  return unique(
    splitList(flag, text).map((item) => {
      const [, digits, suffix = ""] = COUNT.exec(item) ?? [];
      if (digits === undefined) {
        throw usageError(`${flag} contains "${item}", expected whole numbers such as 512 or 32k, separated by commas`);
      }
      const count = Number(digits) * (FACTORS[suffix.toLowerCase()] ?? 1);
      if (count >= least && count <= 2 ** 31 - 1) return count;
      throw usageError(`${flag} contains ${item}, expected whole numbers from ${least} to ${2 ** 31 - 1}`);
    }),
  );
}

/** Parses `unique,mean` into words of a set; `also` ends the message about others. @throws {PagesiftError} of kind "usage" */
export function parseWords<W extends string>(flag: string, text: string, words: readonly W[], also = ""): W[] {
  return unique(
    splitList(flag, text).map((item) => {
      const word = words.find((each) => each === item);
      if (word !== undefined) return word;
      throw usageError(`${flag} contains "${item}", expected some of ${words.join(", ")}${also}`);
    }),
  );
}

/** Parses `32/8,16/8` into pairs of query and KV heads. @throws {PagesiftError} of kind "usage" */
export function parseHeads(flag: string, text: string): { queryHeads: number; kvHeads: number }[] {
  return splitList(flag, text).map((item) => {
    const [, query, kv] = /^(\d+)\/(\d+)$/.exec(item) ?? [];
    const [queryHeads, kvHeads] = [Number(query), Number(kv)];
    if (!queryHeads || !kvHeads) {
      throw usageError(`${flag} contains "${item}", expected query and KV heads such as 32/8`);
    }
    if (queryHeads % kvHeads === 0) return { queryHeads, kvHeads };
    const below = Math.max(kvHeads, Math.floor(queryHeads / kvHeads) * kvHeads);
    throw usageError(
      `${flag} ${item}: the number of query heads is not a multiple of the KV heads; the nearest are ${below}/${kvHeads} and ${
        below + kvHeads
      }/${kvHeads}`,
    );
  });
}

/**
 * Checks that the kernels support the page sizes, and that budgets are multiples of each. @throws {PagesiftError}
 * of kind "usage"
 */
export function checkBudgets(pageSizes: readonly number[], budgets: readonly number[], known: readonly number[]): void {
  const wrong = pageSizes.find((size) => !known.includes(size));
  if (wrong !== undefined) throw usageError(`--page-size contains ${wrong}, expected some of ${known.join(", ")}`);
  for (const size of pageSizes) {
    for (const budget of budgets) {
      if (budget % size === 0) continue;
      const below = Math.floor(budget / size) * size;
      const why = below === 0
        ? `less than a page; the smallest is ${size}`
        : `not a multiple of the page size; the nearest are ${below} and ${below + size}`;
      throw usageError(`--budget ${budget} with --page-size ${size} is ${why}`);
    }
  }
}

/**
 * If a budget covers all pages, sparse equals dense and there is nothing to compare. @throws {PagesiftError} of
 * kind "usage"
 */
export function checkExceeds(
  flag: string,
  tokens: number,
  budgets: readonly number[],
  pageSizes: readonly number[],
): void {
  for (const budget of budgets) {
    if (pageSizes.every((size) => Math.ceil(tokens / size) > budget / size)) continue;
    throw usageError(
      `${flag} ${tokens} does not exceed --budget ${budget}, so nothing would be selected; ` +
        `expected ${budget + 1} or more tokens, or a smaller budget`,
    );
  }
}

/** The items of a list. @throws {PagesiftError} of kind "usage" if one is empty */
export function splitList(flag: string, text: string): string[] {
  const items = text.split(",").map((item) => item.trim());
  if (items.some((item) => item === "")) {
    const what = text.trim() === "" ? "is empty" : `has an empty item in "${text}"`;
    throw usageError(`${flag} ${what}; separate values with commas`);
  }
  return items;
}

function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}
