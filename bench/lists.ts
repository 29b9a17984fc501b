/** Lists of settings as a command line gives them. */
import { PagesiftError } from "../engine/errors.ts";

const COUNT = /^(\d+)([km]?)$/i;
const FACTORS: Readonly<Record<string, number>> = { "": 1, k: 1024, m: 1024 ** 2 };

/** Thrown for every setting that cannot be measured. */
export function usageError(message: string): PagesiftError {
  return new PagesiftError("usage", message);
}

/** `4k,32k` to numbers, each once and in this order. k is 1,024, m 1,048,576. @throws {PagesiftError} of kind "usage" */
export function parseCounts(flag: string, text: string, least: number): number[] {
  return unique(
    splitList(flag, text).map((item) => {
      const [, digits, suffix = ""] = COUNT.exec(item) ?? [];
      if (digits === undefined) {
        throw usageError(`${flag} holds "${item}", wanted whole numbers such as 512 or 32k, with commas between`);
      }
      const count = Number(digits) * (FACTORS[suffix.toLowerCase()] ?? 1);
      if (count >= least && count <= 2 ** 31 - 1) return count;
      throw usageError(`${flag} holds ${item}, wanted whole numbers from ${least} to ${2 ** 31 - 1}`);
    }),
  );
}

/** `unique,mean` to words of a set. @throws {PagesiftError} of kind "usage" */
export function parseWords<W extends string>(flag: string, text: string, words: readonly W[]): W[] {
  return unique(
    splitList(flag, text).map((item) => {
      const word = words.find((each) => each === item);
      if (word !== undefined) return word;
      throw usageError(`${flag} holds "${item}", wanted some of ${words.join(", ")}`);
    }),
  );
}

/** `32/8,16/8` to pairs of query and KV heads. @throws {PagesiftError} of kind "usage" */
export function parseHeads(flag: string, text: string): { queryHeads: number; kvHeads: number }[] {
  return splitList(flag, text).map((item) => {
    const [, query, kv] = /^(\d+)\/(\d+)$/.exec(item) ?? [];
    const [queryHeads, kvHeads] = [Number(query), Number(kv)];
    if (!queryHeads || !kvHeads) throw usageError(`${flag} holds "${item}", wanted query and KV heads such as 32/8`);
    if (queryHeads % kvHeads === 0) return { queryHeads, kvHeads };
    const below = Math.max(kvHeads, Math.floor(queryHeads / kvHeads) * kvHeads);
    throw usageError(
      `${flag} ${item}: the query heads are no multiple of the KV heads; the nearest are ${below}/${kvHeads} and ${
        below + kvHeads
      }/${kvHeads}`,
    );
  });
}

/** Page sizes that the kernels know, and budgets of whole pages of every one of them. @throws {PagesiftError} of kind "usage" */
export function checkBudgets(pageSizes: readonly number[], budgets: readonly number[], known: readonly number[]): void {
  const wrong = pageSizes.find((size) => !known.includes(size));
  if (wrong !== undefined) throw usageError(`--page-size holds ${wrong}, wanted some of ${known.join(", ")}`);
  for (const size of pageSizes) {
    for (const budget of budgets) {
      if (budget % size === 0) continue;
      const below = Math.floor(budget / size) * size;
      const why = below === 0
        ? `less than a page; the smallest is ${size}`
        : `no multiple of the page size; the nearest are ${below} and ${below + size}`;
      throw usageError(`--budget ${budget} with --page-size ${size} is ${why}`);
    }
  }
}

/** Where a budget holds all pages, sparse is dense and there is nothing to compare. @throws {PagesiftError} of kind "usage" */
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
        `wanted ${budget + 1} or more tokens, or a smaller budget`,
    );
  }
}

function splitList(flag: string, text: string): string[] {
  const items = text.split(",").map((item) => item.trim());
  if (items.some((item) => item === "")) {
    const what = text.trim() === "" ? "is empty" : `has an empty place in "${text}"`;
    throw usageError(`${flag} ${what}; give values with commas between`);
  }
  return items;
}

function unique<T>(items: readonly T[]): T[] {
  return [...new Set(items)];
}
