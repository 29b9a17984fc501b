import { PagesiftError } from "../engine/errors.ts";
import type { SamplingOptions } from "../engine/types.ts";
import type { Option } from "./options/option.ts";
import { generateOptions } from "./options/generate.ts";
import { didYouMean } from "./suggest.ts";
import { checkText } from "./text_decode.ts";

/** What a line may set; what it leaves out comes from the flags. */
export interface LineOptions extends SamplingOptions {
  maxTokens?: number;
  stop?: string[];
}

/** One line of a prompts file. */
export interface PromptLine {
  /** Where it stands, as in `prompts.jsonl:3`. */
  place: string;
  prompt: string;
  options: LineOptions;
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

/** Reads all lines of a prompts file, so that nothing runs when one of them is bad. Blank lines are passed over. */
export function parsePromptLines(text: string, file: string, lossy: boolean): PromptLine[] {
  const lines = text.split("\n").map((line, index) => ({ line, place: `${file}:${index + 1}` }));
  const prompts = lines.filter(({ line }) => line.trim() !== "").map(({ line, place }) =>
    parseLine(line, place, lossy)
  );
  if (prompts.length === 0) {
    throw new PagesiftError("usage", `${file} holds no prompts; wanted lines {"prompt": "..."}`);
  }
  return prompts;
}

function parseLine(line: string, place: string, lossy: boolean): PromptLine {
  const fields = parseObject(line, place);
  const unknown = Object.keys(fields).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) {
    const suggestion = didYouMean(unknown, FIELDS) || `; known are ${FIELDS.join(", ")}`;
    throw bad(place, `unknown field "${unknown}"${suggestion}`);
  }
  return { place, prompt: promptOf(fields, place, lossy), options: lineOptions(fields, place) };
}

function parseObject(line: string, place: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw bad(place, `not JSON: ${(error as Error).message}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw bad(place, `wanted an object {"prompt": "..."}, found ${JSON.stringify(value).slice(0, 40)}`);
}

function promptOf({ prompt }: Record<string, unknown>, place: string, lossy: boolean): string {
  if (typeof prompt !== "string") throw bad(place, `"prompt" wanted as a string, found ${JSON.stringify(prompt)}`);
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

/** Goes through the option's own parser, so that a line and the command line have the same ranges. */
function numberOf(value: unknown, field: string, option: Option<number | undefined>, place: string): number {
  if (typeof value !== "number") throw bad(place, `"${field}" wanted as a number, found ${JSON.stringify(value)}`);
  try {
    return option.parse(String(value), field, undefined)!;
  } catch (error) {
    throw bad(place, (error as Error).message);
  }
}

function stopOf(value: unknown, place: string): string[] {
  const texts: unknown[] = Array.isArray(value) ? value : [value];
  if (texts.every((text) => typeof text === "string" && text !== "")) return texts as string[];
  throw bad(place, `"stop" wanted as a string or a list of strings, found ${JSON.stringify(value)}`);
}

function bad(place: string, problem: string): PagesiftError {
  return new PagesiftError("usage", `${place}: ${problem}`);
}
