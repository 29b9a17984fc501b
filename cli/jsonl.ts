import { PagesiftError } from "../engine/errors.ts";
import type { SamplingOptions } from "../engine/types.ts";
import type { Option } from "./options/option.ts";
import { generateOptions } from "./options/generate.ts";
import { isMisspelling } from "./suggest.ts";
import { checkText } from "./text_decode.ts";

/** Options that a line may set; the flags supply the others. */
export interface LineOptions extends SamplingOptions {
  maxTokens?: number;
  stop?: string[];
}

/** One line of a prompts file. */
export interface PromptLine {
  /** Position of the line, such as `prompts.jsonl:3`. */
  place: string;
  prompt: string;
  options: LineOptions;
  /** The user's own fields, which are copied to the output line. Numbers keep their digits. */
  own: Record<string, unknown>;
}

/** Numeric fields and the option whose range they share. */
const NUMBER_FIELDS = {
  max_tokens: "maxTokens",
  temperature: "temperature",
  top_k: "topK",
  top_p: "topP",
  min_p: "minP",
  repeat_penalty: "repeatPenalty",
  repeat_last_n: "repeatLastTokens",
  seed: "seed",
} as const;

const FIELDS = ["prompt", "stop", ...Object.keys(NUMBER_FIELDS)];
/** Fields of an output line. */
const OUTPUT_FIELDS = ["text", "ids", "finish", "error", "verification"];

/** Reads all lines of a prompts file, so that nothing runs if one of them is invalid. Blank lines are skipped. */
export function parsePromptLines(text: string, file: string, lossy: boolean): PromptLine[] {
  const lines = text.split("\n").map((line, index) => ({ line, place: `${file}:${index + 1}` }));
  const prompts = lines.filter(({ line }) => line.trim() !== "").map(({ line, place }) =>
    parsePromptLine(line, place, lossy)
  );
  if (prompts.length === 0) throw noPrompts(file);
  return prompts;
}

export function noPrompts(file: string): PagesiftError {
  return new PagesiftError("usage", `${file} contains no prompts; expected lines such as {"prompt": "..."}`);
}

/** The user's own fields of a line, which may be invalid; none if it is no object. */
export function ownFields(line: string): Record<string, unknown> {
  try {
    const fields = Object.entries(parseObject(line, ""));
    return Object.fromEntries(fields.filter(([name]) => !FIELDS.includes(name) && !OUTPUT_FIELDS.includes(name)));
  } catch {
    return {};
  }
}

/** One line of a prompts file. @throws {PagesiftError} of kind "usage" that begins with its place */
export function parsePromptLine(line: string, place: string, lossy: boolean): PromptLine {
  const fields = parseObject(line, place);
  const own = Object.entries(fields).filter(([name]) => !FIELDS.includes(name));
  for (const [name] of own) checkOwnField(name, place);
  const options = lineOptions(fields, place);
  return { place, prompt: promptOf(fields, place, lossy), options, own: Object.fromEntries(own) };
}

/** A field of the user's own must neither look like a setting nor have the name of an output field. */
function checkOwnField(name: string, place: string): void {
  const meant = FIELDS.find((field) => isMisspelling(name, field));
  if (meant !== undefined) throw bad(place, `unknown field "${name}", did you mean "${meant}"?`);
  if (!OUTPUT_FIELDS.includes(name)) return;
  throw bad(place, `the field "${name}" clashes with a field of the output line; rename it`);
}

function parseObject(line: string, place: string): Record<string, unknown> {
  let value: unknown;
  try {
    // Numbers in the user's own fields keep all their digits.
    value = JSON.parse(line, keepDigits);
  } catch (error) {
    throw bad(place, `not JSON: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw bad(place, `expected an object {"prompt": "..."}, found ${JSON.stringify(value).slice(0, 40)}`);
}

function promptOf({ prompt }: Record<string, unknown>, place: string, lossy: boolean): string {
  if (typeof prompt !== "string") throw bad(place, `"prompt" must be a string, found ${JSON.stringify(prompt)}`);
  if (prompt.trim() === "") throw bad(place, `"prompt" is empty`);
  return checkText(prompt, `The prompt of ${place}`, lossy).text;
}

function lineOptions(fields: Record<string, unknown>, place: string): LineOptions {
  const options: LineOptions = {};
  for (const [field, name] of Object.entries(NUMBER_FIELDS)) {
    if (fields[field] !== undefined) options[name] = numberOf(fields[field], field, generateOptions[name], place);
  }
  if (fields.stop !== undefined) options.stop = stopOf(fields.stop, place);
  return options;
}

/** Uses the option's own parser, so that a line and the command line accept the same ranges. */
function numberOf(raw: unknown, field: string, option: Option<number | undefined>, place: string): number {
  const value: unknown = JSON.parse(JSON.stringify(raw));
  if (typeof value !== "number") throw bad(place, `"${field}" must be a number, found ${JSON.stringify(value)}`);
  try {
    return option.parse(String(value), field, undefined)!;
  } catch (error) {
    throw bad(place, (error as Error).message);
  }
}

function stopOf(value: unknown, place: string): string[] {
  const texts: unknown[] = Array.isArray(value) ? value : [value];
  if (texts.every((text) => typeof text === "string" && text !== "")) return texts as string[];
  throw bad(place, `"stop" must be a string or a list of strings, found ${JSON.stringify(value)}`);
}

/** A number that is written as this text; TypeScript does not declare it yet. */
const { rawJSON } = JSON as unknown as { rawJSON: (text: string) => unknown };

function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  return typeof value === "number" && context?.source !== undefined ? rawJSON(context.source) : value;
}

function bad(place: string, problem: string): PagesiftError {
  return new PagesiftError("usage", `${place}: ${problem}`);
}
