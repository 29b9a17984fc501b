import { PAGE_SIZES, SCORERS } from "../../engine/pages/page_policy.ts";
import {
  choiceOption,
  countOption,
  listOption,
  numberChoiceOption,
  numberOption,
  switchOption,
  textOption,
  tokenCountOption,
  type Values,
} from "./option.ts";
import { commonOptions } from "./common.ts";
import { deviceOptions, modelOptions } from "./model.ts";
import { denseLayers, lambdaOption, levelsOption } from "./sparse.ts";
import { unescapeText } from "../../engine/text/escape.ts";

const inputOptions = {
  prompt: listOption({ flags: ["-p", "--prompt"], group: "Prompt", help: "Text of the prompt, - for stdin" }),
  files: listOption({
    flags: ["-f", "--file", "--prompt-file"],
    group: "Prompt",
    placeholder: "FILE",
    help: "Read a part of the prompt from a file, - for stdin",
  }),
  jsonl: textOption({
    flags: ["--jsonl"],
    group: "Prompt",
    placeholder: "FILE",
    fallback: undefined,
    help: 'Answer many prompts as a batch: a line {"prompt": ...} in, - for stdin, a line {"text", "ids", "finish"} ' +
      "out, in the same order. A line may also set max_tokens, temperature, top_k, top_p, min_p, repeat_penalty, " +
      "repeat_last_n, seed and stop; other fields, such as an id, are repeated in the output. Line i is drawn with " +
      "--seed + i, counted from 0",
  }),
  noStdin: switchOption({ flags: ["--no-stdin"], group: "Prompt", help: "Leave stdin unread even if it is a pipe" }),
  chat: switchOption({
    flags: ["--chat"],
    group: "Prompt",
    help: "Put the prompt into the model's chat template, as the message of a user",
  }),
  system: textOption({
    flags: ["--system", "--system-prompt"],
    group: "Prompt",
    fallback: undefined,
    help: "System message of the chat; implies --chat",
  }),
  raw: switchOption({
    flags: ["--raw"],
    group: "Prompt",
    help: "Add no special tokens and use no template; special tokens written in the prompt count as such",
  }),
  truncate: choiceOption({
    flags: ["--truncate"],
    group: "Prompt",
    choices: ["head", "middle", "tail"],
    fallback: undefined,
    help: "Where to cut a prompt longer than the context: head drops its beginning, tail its end, middle keeps both; " +
      "room for --max-tokens is left, up to half the context. Without it such a prompt is an error",
  }),
  lossy: switchOption({
    flags: ["--lossy"],
    group: "Prompt",
    help: "Replace bytes that are not UTF-8 text by U+FFFD and report how many, instead of refusing them",
  }),
};

const { model, revision, offline, weights } = modelOptions;

/** In the order of `--help`. */
const placeOptions = {
  model,
  ctxSize: tokenCountOption({
    flags: ["-c", "--ctx-size"],
    group: "Model and device",
    range: { min: 0 },
    fallback: 0,
    fallbackText: "0, the model's own",
    help: "Context in tokens",
  }),
  weights,
  ...deviceOptions,
  revision,
  offline,
};

const samplingOptions = {
  maxTokens: tokenCountOption({
    flags: ["-n", "--n-predict", "--max-tokens"],
    group: "Sampling",
    range: { min: 1 },
    fallback: 256,
    help: "Tokens to generate at most",
  }),
  temperature: numberOption({
    flags: ["--temp", "--temperature"],
    group: "Sampling",
    range: { min: 0, max: 100 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "0 always takes the most likely token; higher is more varied",
  }),
  topK: countOption({
    flags: ["--top-k"],
    group: "Sampling",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "Draw from the N most likely tokens; 0 is off",
  }),
  topP: numberOption({
    flags: ["--top-p"],
    group: "Sampling",
    range: { min: 0, above: true, max: 1 },
    fallback: undefined,
    fallbackText: "1, or the model's own",
    help: "Draw from the fewest tokens whose probabilities reach this sum; 1 is off",
  }),
  minP: numberOption({
    flags: ["--min-p"],
    group: "Sampling",
    range: { min: 0, max: 1 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "Drop tokens less likely than this share of the most likely one; 0 is off",
  }),
  repeatPenalty: numberOption({
    flags: ["--repeat-penalty"],
    group: "Sampling",
    range: { min: 0, above: true, max: 100 },
    fallback: undefined,
    fallbackText: "1, or the model's own",
    help: "Above 1, tokens that were just used become less likely; 1 is off",
  }),
  repeatLastTokens: tokenCountOption({
    flags: ["--repeat-last-n"],
    group: "Sampling",
    range: { min: 0 },
    fallback: 64,
    help: "Latest tokens that the repeat penalty looks at",
  }),
  seed: countOption({
    flags: ["-s", "--seed"],
    group: "Sampling",
    range: { min: 0, max: 2 ** 32 - 1 },
    fallback: undefined,
    fallbackText: "drawn at random",
    help: "The same seed gives the same text",
  }),
  stop: listOption({
    flags: ["--stop"],
    group: "Sampling",
    help: String.raw`End before this text, which may hold \n, \t, \\ and \u{hex}`,
  }, unescapeText),
};

const sparseOptions = {
  sparse: choiceOption({
    flags: ["--sparse"],
    group: "Sparse attention",
    choices: ["auto", "on", "off"],
    fallback: "auto",
    help: "Read only the KV pages that matter once there are more of them than the budget; off reads all",
  }),
  sparseBudget: tokenCountOption({
    flags: ["--sparse-budget"],
    group: "Sparse attention",
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "512, or as the model was trained",
    help: "Tokens that a step reads a KV head, a multiple of the page size",
  }),
  pageSize: numberChoiceOption({
    flags: ["--page-size"],
    group: "Sparse attention",
    choices: PAGE_SIZES,
    fallback: undefined,
    fallbackText: "8, or as the model was trained",
    help: "Tokens a page",
  }),
  sparseScorer: choiceOption({
    flags: ["--sparse-scorer"],
    group: "Sparse attention",
    choices: SCORERS,
    fallback: undefined,
    fallbackText: "unique, or as the model was trained",
    help: "How pages are scored",
  }),
  sparseLambda: lambdaOption,
  sparseSink: countOption({
    flags: ["--sparse-sink"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "1, or as the model was trained",
    help: "First pages that are always read",
  }),
  sparseRecent: countOption({
    flags: ["--sparse-recent"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "2, or as the model was trained",
    help: "Last pages that are always read",
  }),
  ...denseLayers,
  sparseLevels: levelsOption,
};

const outputOptions = {
  json: switchOption({
    flags: ["--json"],
    group: "Output and messages",
    help: "Print one JSON object with text, ids, finish and stats instead of the text",
  }),
  noStream: switchOption({
    flags: ["--no-stream"],
    group: "Output and messages",
    help: "Print the text when it is complete",
  }),
};

/** The option table of `generate`. */
export const generateOptions = {
  ...inputOptions,
  ...placeOptions,
  ...samplingOptions,
  ...sparseOptions,
  ...outputOptions,
  ...commonOptions,
};

/** The values of `generate`'s options. */
export type GenerateFlags = Values<typeof generateOptions>;
/** Those that say what is computed, not how it is shown. */
export type ModelFlags = Omit<GenerateFlags, "jsonl" | "json" | "noStream">;
