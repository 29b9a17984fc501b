import { isJsonObject, type JsonObject, quote } from "../folder/json_file.ts";

/** Parts of `tokenizer.json` that contain others of their kind, by the names of these lists. */
const LISTS = ["normalizers", "pretokenizers", "processors", "decoders"];
/** Parts that look for a pattern. */
const SEARCHING = ["Split", "Replace"];
/** How many times longer a part may make a text; those of real tokenizers put single characters. */
const MAX_GROWTH = 64;

/**
 * Why parts of `tokenizer.json` cannot be trusted to the tokenizers library, or undefined. The library accepts some invalid parts: it
 * prints unknown ones to the terminal, and fails later, in the middle of a text.
 */
export function findPartProblem(parts: readonly unknown[]): string | undefined {
  for (const part of parts) {
    const steps = part === null || part === undefined ? [] : stepsOf(part);
    const broken = steps.map(stepProblem).find((text) => text !== undefined);
    if (broken !== undefined) return `${broken}; download the file again`;
    if (steps.reduce<number>((growth, step) => growth * stepGrowth(step), 1) > MAX_GROWTH) {
      return `its replacements could make a text more than ${MAX_GROWTH} times as long; use another model`;
    }
  }
}

/** A part, or the parts inside it in their order. */
function stepsOf(part: unknown): unknown[] {
  if (!isJsonObject(part)) return [part];
  const lists = LISTS.map((name) => part[name]).filter(Array.isArray);
  return lists.length === 0 ? [part] : lists.flat().flatMap(stepsOf);
}

function stepProblem(step: unknown): string | undefined {
  if (!isJsonObject(step) || typeof step.type !== "string") {
    return `a part is ${quote(step)}, expected one with a "type"`;
  }
  if (!SEARCHING.includes(step.type)) return undefined;
  const { pattern } = step;
  if (isJsonObject(pattern) && [pattern.Regex, pattern.String].some((text) => typeof text === "string")) {
    return undefined;
  }
  return `a "${step.type}" has the pattern ${quote(pattern)}, expected a "Regex" or a "String"`;
}

/** An empty pattern matches between any two characters, so what is put in counts, not what it stands for. */
function stepGrowth(step: unknown): number {
  const { content, prepend } = step as JsonObject;
  return [content, prepend].reduce<number>(
    (most, text) => Math.max(most, typeof text === "string" ? text.length : 1),
    1,
  );
}
