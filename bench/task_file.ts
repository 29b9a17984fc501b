/** Tasks from a file: JSON Lines with a context, a question and accepted answers. */
import { fieldError, parseObject } from "./json_lines.ts";
import { usageError } from "./lists.ts";
import type { QualityPlan } from "./quality_plan.ts";
import {
  type EncodePrompt,
  encodeTrials,
  longestTrial,
  type Question,
  type QuestionedText,
  type TrialDocument,
} from "./trials.ts";

const ANSWER_TOKENS = 64;
const MOST_ANSWER_TOKENS = 1024;

/**
 * Reads `{"context", "question", "answers"}` per line, with `input` for `question` as in LongBench. `match` is `any` (default) or
 * `all`, `answer_tokens` the longest answer. Other fields are ignored, blank lines skipped.
 *
 * @throws {PagesiftError} of kind "usage" that names the line and the field
 */
export function parseTaskLines(file: string, text: string): QuestionedText[] {
  const lines = text.replace(/^\uFEFF/, "").split("\n").flatMap((line, index) =>
    line.trim() === "" ? [] : [parseLine(line, `${file}:${index + 1}`)]
  );
  if (lines.length > 0) return lines;
  throw usageError(
    `--task ${file} has no lines; expected lines such as {"context": "...", "question": "...", "answers": ["..."]}`,
  );
}

/** The documents of a file, and how many lines cannot be measured. */
export interface FileDocuments {
  documents: readonly TrialDocument[];
  /** Lines of a context that the largest budget covers, so that nothing would be selected. */
  short: number;
  /** Lines that exceed the context of the model with question and answer. */
  long: number;
}

/** Encodes lines; neighbouring lines with the same context become one document. */
export function fileDocuments(
  lines: readonly QuestionedText[],
  encode: EncodePrompt,
  { mostBudgetTokens }: Pick<QualityPlan, "mostBudgetTokens">,
  maxContext: number,
): FileDocuments {
  const documents = byContext(lines).map((text) => encodeTrials(encode, text));
  const isShort = ({ ids }: TrialDocument): boolean => ids.length <= mostBudgetTokens;
  const isLong = (document: TrialDocument): boolean => longestTrial(document) > maxContext;
  return {
    documents: documents.filter((each) => !isShort(each) && !isLong(each)),
    short: countTrials(documents.filter(isShort)),
    long: countTrials(documents.filter(isLong)),
  };
}

function byContext(lines: readonly QuestionedText[]): QuestionedText[] {
  const texts: { context: string; questions: Question[] }[] = [];
  for (const { context, questions } of lines) {
    const last = texts.at(-1);
    if (last?.context === context) last.questions.push(...questions);
    else texts.push({ context, questions: [...questions] });
  }
  return texts;
}

function countTrials(documents: readonly TrialDocument[]): number {
  return documents.reduce((sum, { trials }) => sum + trials.length, 0);
}

function parseLine(line: string, place: string): QuestionedText {
  const fields = parseObject(line, place);
  const question: Question = {
    question: textOf(fields, fields.question === undefined && fields.input !== undefined ? "input" : "question", place),
    answerStart: "Answer:",
    accepted: answersOf(fields.answers, place),
    match: matchOf(fields.match, place),
    answerTokens: answerTokensOf(fields.answer_tokens, place),
  };
  return { context: textOf(fields, "context", place), questions: [question] };
}

function textOf(fields: Readonly<Record<string, unknown>>, name: string, place: string): string {
  const value = fields[name];
  if (typeof value === "string" && value.trim() !== "") return value;
  throw fieldError(place, name, value, "text");
}

function answersOf(value: unknown, place: string): string[] {
  const answers: unknown[] = Array.isArray(value) ? value : [value];
  const valid = answers.length > 0 && answers.every((each) => typeof each === "string" && each.trim() !== "");
  if (valid) return answers as string[];
  throw fieldError(place, "answers", value, "a list of accepted texts");
}

function matchOf(value: unknown, place: string): "any" | "all" {
  if (value === undefined) return "any";
  if (value === "any" || value === "all") return value;
  throw fieldError(place, "match", value, '"any" or "all"');
}

function answerTokensOf(value: unknown, place: string): number {
  if (value === undefined) return ANSWER_TOKENS;
  if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MOST_ANSWER_TOKENS) {
    return value as number;
  }
  throw fieldError(place, "answer_tokens", value, `a whole number from 1 to ${MOST_ANSWER_TOKENS}`);
}
