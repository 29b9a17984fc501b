/** Documents for retrieval: prose from a file with planted facts. */
import type { Tokenizer } from "../engine/text/tokenizer.ts";
import { Random } from "../engine/sample/random.ts";
import { usageError } from "./lists.ts";

/** Words from the training of the default model (models/default/README.md); other models work with any words. */
const ADJECTIVES = "amber brass copper dusty eager frozen gentle hollow iron jolly keen lonely misty noble olive proud"
  .split(" ");
const NOUNS = "falcon harbor lantern meadow mountain orchard palace river shepherd station temple village window garden"
  .split(" ");
const DIGITS = 5;
/** No fact lies in the last part of a document, where the recent pages would contain it. */
export const DEEPEST = 0.95;
/** Facts in a document of pairs: enough that names and numbers compete. */
const PAIRS = 60;

export interface Fact {
  name: string;
  value: string;
  /** Share of the document before the fact. */
  depth: number;
}

/** Token ids, and the facts to ask for. */
export interface Document {
  ids: readonly number[];
  asked: readonly Fact[];
}

/** Facts with different names, spread evenly with jitter. */
export function makeFacts(random: Random, count: number): Fact[] {
  const facts = new Map<string, Fact>();
  while (facts.size < count) {
    const name = `${pick(random, ADJECTIVES)} ${pick(random, NOUNS)}`;
    if (facts.has(name)) continue;
    facts.set(name, { name, value: makeValue(random), depth: (facts.size + random.nextFloat()) / count * DEEPEST });
  }
  return [...facts.values()];
}

/** A number of 5 digits, as text. */
export function makeValue(random: Random): string {
  return Array.from({ length: DIGITS }, () => Math.floor(random.nextFloat() * 10)).join("");
}

/** Prose of exactly `lengthTokens` tokens with `count` facts, all of which are asked for. */
export function needleDocument(
  tokenizer: Tokenizer,
  prose: readonly number[],
  lengthTokens: number,
  count: number,
  random: Random,
): Document {
  const facts = makeFacts(random, count);
  return { ids: plant(tokenizer, prose, facts, lengthTokens), asked: facts };
}

/** The same with many more facts, of which `count` are asked for, spread over the depths. */
export function pairsDocument(
  tokenizer: Tokenizer,
  prose: readonly number[],
  lengthTokens: number,
  count: number,
  random: Random,
): Document {
  const facts = makeFacts(random, Math.max(count, Math.min(PAIRS, Math.floor(lengthTokens / 40))));
  return { ids: plant(tokenizer, prose, facts, lengthTokens), asked: spread(facts, count) };
}

/** The question that follows a document; the answer is the value of the fact. */
export function question({ name }: Fact): string {
  return `\n\nWhat is the code for the ${name}? The code for the ${name} is`;
}

/**
 * Token ids of a text file, with the lines of a paragraph joined. @throws {PagesiftError} of kind "usage" if the
 * text is too short
 */
export function proseIds(tokenizer: Tokenizer, file: string, text: string, tokens: number): number[] {
  const ids = tokenizer.encode(text.replaceAll(/(?<!\n)\r?\n(?!\r?\n)/g, " "));
  if (ids.length >= tokens) return ids;
  throw usageError(
    `"${file}" has ${ids.length} tokens, expected at least ${tokens}; name a longer one with --text, or lower --length`,
  );
}

function plant(tokenizer: Tokenizer, prose: readonly number[], facts: readonly Fact[], lengthTokens: number): number[] {
  const statements = facts.map(({ name, value }) =>
    tokenizer.encode(` The code for the ${name} is ${value}.`, { addSpecialTokens: false })
  );
  const room = lengthTokens - statements.reduce((sum, ids) => sum + ids.length, 0);
  const out: number[] = [];
  let taken = 0;
  facts.forEach((fact, index) => {
    const until = Math.floor(fact.depth * room);
    out.push(...prose.slice(taken, until), ...(statements[index] ?? []));
    taken = until;
  });
  return [...out, ...prose.slice(taken, room)];
}

/** At most `count` of the items, evenly spaced. */
export function spread<T>(items: readonly T[], count: number): T[] {
  const taken = Math.min(count, items.length);
  return Array.from({ length: taken }, (_, index) => items[Math.floor((index + 0.5) * items.length / taken)] as T);
}

/** One of the items. */
export function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random.nextFloat() * items.length)] as T;
}
