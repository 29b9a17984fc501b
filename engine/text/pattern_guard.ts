import { isJsonObject } from "../folder/json_file.ts";

/** Repetitions without a bound that can follow each other, also from group to group; patterns of real tokenizers have two. */
const MAX_DEGREE = 2;
/** Ways in which choices, options and bounded repetitions can follow each other; real ones have tens. */
const MAX_WAYS = 1000;
const MAX_DEPTH = 32;

/** What was seen in an open group. A text of n characters can be matched in some ways * n^degree ways. */
interface Group {
  /** Something that matches texts of several lengths, so that repeating it could match one text in many ways. */
  varies: boolean;
  /** Of the present alternative. */
  degree: number;
  ways: number;
  /** Of those before it: the largest, and their sum. */
  mostDegree: number;
  allWays: number;
}

function newGroup(): Group {
  return { varies: false, degree: 0, ways: 1, mostDegree: 0, allWays: 0 };
}

function endAlternative(group: Group): void {
  group.mostDegree = Math.max(group.mostDegree, group.degree);
  group.allWays += group.ways;
  [group.degree, group.ways] = [0, 1];
}

/**
 * Why a regular expression could run forever, or undefined. A backtracking engine tries every way to match, and only
 * the clock of `time_limit.ts` stops it, not Ctrl-C. Exponentially many ways need a repeated group in which something
 * varies, a choice or another repetition, or many such groups in a row; the patterns of tokenizers contain none.
 */
export function patternProblem(source: string): string | undefined {
  const open = [newGroup()];
  for (let at = 0; at < source.length;) {
    const end = atomEnd(source, at);
    const group = open.at(-1)!;
    const character = source[at];
    if (character === "(") open.push(newGroup());
    else if (character === "|") {
      group.varies = true;
      endAlternative(group);
    }
    if (open.length > MAX_DEPTH) return "its groups are nested too deeply";
    const closed = character === ")" && open.length > 1 ? open.pop() : undefined;
    if (closed) endAlternative(closed);
    const quantifier = character === "(" || character === "|" ? ONCE : quantifierAt(source, end);
    at = end + quantifier.length;
    if (closed?.varies && quantifier.max > 1) return "it repeats a group in which something varies";
    const problem = follow(open.at(-1)!, closed, quantifier);
    if (problem !== undefined) return problem;
  }
}

/** Adds what follows in an alternative: a closed group or a single atom, with its quantifier. */
function follow(group: Group, closed: Group | undefined, { min, max }: Quantifier): string | undefined {
  group.varies ||= closed?.varies === true || min !== max;
  group.degree += (closed?.mostDegree ?? 0) + (max === Infinity ? 1 : 0);
  group.ways *= (closed?.allWays ?? 1) + (max === Infinity ? 0 : max - min);
  if (group.degree > MAX_DEGREE) return "it has too many repetitions in a row";
  if (group.ways > MAX_WAYS) return "it has too many choices in a row";
}

interface Quantifier {
  min: number;
  max: number;
  /** Characters that it matches. */
  length: number;
}

const ONCE: Quantifier = { min: 1, max: 1, length: 0 };
const SIGNS: Readonly<Record<string, [min: number, max: number]>> = {
  "*": [0, Infinity],
  "+": [1, Infinity],
  "?": [0, 1],
};

function quantifierAt(source: string, at: number): Quantifier {
  const braces = /^\{(\d+)(,(\d*))?\}/.exec(source.slice(at, at + 24));
  const sign = SIGNS[source[at] ?? ""];
  if (!braces && !sign) return ONCE;
  const length = braces?.[0].length ?? 1;
  const [min, max] = sign ?? [Number(braces?.[1]), braces?.[2] ? Number(braces[3] || Infinity) : Number(braces?.[1])];
  // A mark that makes it lazy or possessive.
  return { min, max, length: length + (/[?+]/.test(source[at + length] ?? "") ? 1 : 0) };
}

/** Where the atom ends that begins at `at`: a character, an escape, a class, or the head of a group. */
function atomEnd(source: string, at: number): number {
  if (source[at] === "\\") return at + (/^\\[pP]\{[^}]*\}/.exec(source.slice(at, at + 64))?.[0].length ?? 2);
  if (source[at] === "[") return classEnd(source, at);
  if (source[at] !== "(") return at + 1;
  return at + (/^\((\?(<?[=!]|<[^>]*>|[a-z-]*:|>))?/.exec(source.slice(at, at + 64))?.[0].length ?? 1);
}

function classEnd(source: string, start: number): number {
  for (let at = start + 1; at < source.length; at++) {
    if (source[at] === "\\") at++;
    else if (source[at] === "]" && at > start + 1) return at + 1;
  }
  return source.length;
}

/** The problem of the first regular expression inside a part of `tokenizer.json` that could run forever. */
export function findPatternProblem(value: unknown): string | undefined {
  if (Array.isArray(value)) return firstProblem(value);
  if (!isJsonObject(value)) return undefined;
  const problem = typeof value.Regex === "string" ? patternProblem(value.Regex) : undefined;
  return problem ?? firstProblem(Object.values(value));
}

function firstProblem(values: readonly unknown[]): string | undefined {
  for (const value of values) {
    const problem = findPatternProblem(value);
    if (problem !== undefined) return problem;
  }
}
