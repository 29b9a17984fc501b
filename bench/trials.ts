/** Questions about a document: their tokens, and the score of an answer. */
import { commonPrefix } from "../engine/pages/prompt_order.ts";
import { usageError } from "./lists.ts";

/**
 * How an answer is scored by the strings that it contains, whether upper or lower case: `all` by the share of the accepted strings,
 * `any` by whether there is one. `start` requires that the answer begins with the only one.
 */
export type Match = "all" | "any" | "start";

/** A question about the text before it. */
export interface Question {
  question: string;
  /** The beginning of the answer, which the model continues. */
  answerStart: string;
  accepted: readonly string[];
  match: Match;
  /** Tokens to decode at most. */
  answerTokens: number;
  /** Share of the document before the place that holds the answer, where there is one such place. */
  depth?: number;
}

/** A text and the questions about it. */
export interface QuestionedText {
  context: string;
  questions: readonly Question[];
}

/** A question as the tokens that follow a document. */
export interface Trial extends Pick<Question, "accepted" | "match" | "answerTokens" | "depth"> {
  /** Token ids from the end of the document to the beginning of the answer. */
  ids: readonly number[];
}

/** Token ids that all questions share, and what follows them. */
export interface TrialDocument {
  ids: readonly number[];
  trials: readonly Trial[];
}

/** Token ids of a prompt, in the chat template or without one, with the beginning of the answer. */
export type EncodePrompt = (prompt: string, answerStart: string) => number[];

/** The longest common beginning of all prompts becomes the document, so no question is part of it. */
export function encodeTrials(encode: EncodePrompt, { context, questions }: QuestionedText): TrialDocument {
  const bare = bareIds(encode, context);
  const prompts = questions.map((each) => encode(`${context}\n\n${each.question}`, each.answerStart));
  const shared = Math.min(...prompts.map((ids) => commonPrefix(bare, ids)));
  const trials = questions.map(({ question: _, answerStart: __, ...question }, index): Trial => ({
    ...question,
    ids: prompts[index]?.slice(shared) ?? [],
  }));
  return { ids: bare.slice(0, shared), trials };
}

/**
 * Trials about the longest text whose document has at most `lengthTokens` tokens, of at most `most` units.
 *
 * @param make called with units from 0; the tokens must not fall as units rise
 * @throws {PagesiftError} of kind "usage" if none is short enough
 */
export function fitTrials(
  encode: EncodePrompt,
  make: (units: number) => QuestionedText,
  { task, lengthTokens, most }: { task: string; lengthTokens: number; most: number },
): TrialDocument {
  const tokensOf = (units: number): number => bareIds(encode, make(units).context).length;
  const least = tokensOf(0);
  if (least > lengthTokens) {
    throw usageError(`--length ${lengthTokens} is too short for --task ${task}; it requires at least ${least} tokens`);
  }
  let [fits, exceeds] = [0, most + 1];
  while (exceeds - fits > 1) {
    const middle = Math.floor((fits + exceeds) / 2);
    if (tokensOf(middle) <= lengthTokens) fits = middle;
    else exceeds = middle;
  }
  return encodeTrials(encode, make(fits));
}

/** Tokens of the document with its longest question and answer. */
export function longestTrial({ ids, trials }: TrialDocument): number {
  return ids.length + Math.max(...trials.map((trial) => trial.ids.length + trial.answerTokens));
}

/** Score of an answer, 0 to 1. */
export function scoreAnswer(answer: string, { accepted, match }: Pick<Question, "accepted" | "match">): number {
  const text = answer.toLowerCase();
  if (match === "start") return text.trim().startsWith(accepted[0]?.toLowerCase() ?? "") ? 1 : 0;
  const found = accepted.filter((each) => text.includes(each.toLowerCase())).length;
  return match === "any" ? Math.min(1, found) : found / accepted.length;
}

function bareIds(encode: EncodePrompt, context: string): number[] {
  return encode(`${context}\n\n`, "");
}
