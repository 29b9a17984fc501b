import { MAX_BATCH } from "../../engine/request.ts";
import { PAGE_SIZES, SCORERS } from "../../engine/pages/page_policy.ts";
import {
  choiceOption,
  countOption,
  listOption,
  numberChoiceOption,
  numberOption,
  optionalCountOption,
  switchOption,
  textOption,
  tokenCountOption,
  type Values,
} from "./option.ts";
import { commonOptions } from "./common.ts";
import { deviceOptions, devicesOption, modelOptions } from "./model.ts";
import { promptCacheOptions } from "./prompt_cache.ts";
import { denseLayers, lambdaOption, levelsOption, prefillOptions } from "./sparse.ts";
import { unescapeText } from "../../engine/text/escape.ts";

const inputOptions = {
  prompt: listOption({ flags: ["-p", "--prompt"], group: "Prompt", help: "Prompt text, or - for stdin" }),
  files: listOption({
    flags: ["-f", "--file", "--prompt-file"],
    group: "Prompt",
    placeholder: "FILE",
    help: "Read part of the prompt from a file, or - for stdin",
  }),
  jsonl: textOption({
    flags: ["--jsonl"],
    group: "Prompt",
    placeholder: "FILE",
    fallback: undefined,
    help: 'Answer a batch of prompts: one line {"prompt": ...} per prompt in FILE, or - for stdin, whose lines are ' +
      'answered as they arrive; one line {"text", "ids", "finish"} per answer. A line may also set max_tokens, temperature, top_k, ' +
      "top_p, min_p, repeat_penalty, repeat_last_n, seed and stop; other fields, such as an id, are copied to the " +
      "output. Line i, counted from 0, uses --seed + i",
  }),
  ordered: switchOption({
    flags: ["--ordered"],
    group: "Prompt",
    help: "Print the answers of --jsonl - in the order of the prompts, as for a file, instead of each when it is done",
  }),
  parallel: countOption({
    flags: ["--parallel"],
    group: "Prompt",
    range: { min: 1, max: MAX_BATCH },
    fallback: undefined,
    fallbackText: "as many as memory allows",
    help: "Answer up to N prompts of --jsonl at the same time; more take longer each, and less in all",
  }),
  noStdin: switchOption({ flags: ["--no-stdin"], group: "Prompt", help: "Do not read stdin, even if it is a pipe" }),
  chat: switchOption({
    flags: ["--chat"],
    group: "Prompt",
    help:
      "Wrap the prompt in the model's chat template, as a user message. On a terminal and without a prompt, start a " +
      "conversation; the files of -f belong to its first question",
  }),
  system: textOption({
    flags: ["--system", "--system-prompt"],
    group: "Prompt",
    fallback: undefined,
    help: "System message of the chat; implies --chat",
  }),
  thinking: choiceOption({
    flags: ["--thinking"],
    group: "Prompt",
    choices: ["on", "off"],
    fallback: undefined,
    fallbackText: "the chat template's own",
    help: "Set enable_thinking for the chat template of a model that can think before it answers; requires --chat",
  }),
  raw: switchOption({
    flags: ["--raw"],
    group: "Prompt",
    help: "Add no special tokens and no template; special tokens spelled out in the prompt are recognised",
  }),
  truncate: choiceOption({
    flags: ["--truncate"],
    group: "Prompt",
    choices: ["head", "middle", "tail"],
    fallback: undefined,
    help:
      "Shorten a prompt that is longer than the context: head drops its beginning, tail its end, middle its middle. " +
      "Leaves room for --max-tokens, up to half the context. Without this flag, such a prompt is an error",
  }),
  lossy: switchOption({
    flags: ["--lossy"],
    group: "Prompt",
    help: "Replace bytes that are not UTF-8 text with U+FFFD and report how many, instead of failing",
  }),
};

const { model, adapter, revision, offline, weights, kvType } = modelOptions;

export const contextOption = tokenCountOption({
  flags: ["-c", "--ctx-size"],
  group: "Model and device",
  range: { min: 0 },
  fallback: 0,
  fallbackText: "0, the model's maximum",
  help: "Context length in tokens",
});

/** In the order of `--help`. */
const placeOptions = {
  model,
  adapter,
  ctxSize: contextOption,
  weights,
  kvType,
  ...deviceOptions,
  ...devicesOption,
  revision,
  offline,
};

const samplingOptions = {
  maxTokens: tokenCountOption({
    flags: ["-n", "--n-predict", "--max-tokens"],
    group: "Sampling",
    range: { min: 1 },
    fallback: 256,
    help: "Maximum number of tokens to generate",
  }),
  temperature: numberOption({
    flags: ["--temp", "--temperature"],
    group: "Sampling",
    range: { min: 0, max: 100 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "Sampling temperature; 0 always picks the most likely token, higher values vary more",
  }),
  topK: countOption({
    flags: ["--top-k"],
    group: "Sampling",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "Sample from the N most likely tokens; 0 turns this off",
  }),
  topP: numberOption({
    flags: ["--top-p"],
    group: "Sampling",
    range: { min: 0, above: true, max: 1 },
    fallback: undefined,
    fallbackText: "1, or the model's own",
    help: "Sample from the smallest set of tokens whose probabilities add up to X; 1 turns this off",
  }),
  minP: numberOption({
    flags: ["--min-p"],
    group: "Sampling",
    range: { min: 0, max: 1 },
    fallback: undefined,
    fallbackText: "0, or the model's own",
    help: "Drop tokens less likely than X times the most likely one; 0 turns this off",
  }),
  repeatPenalty: numberOption({
    flags: ["--repeat-penalty"],
    group: "Sampling",
    range: { min: 0, above: true, max: 100 },
    fallback: undefined,
    fallbackText: "1, or the model's own",
    help: "Make recently used tokens less likely; 1 turns this off",
  }),
  repeatLastTokens: tokenCountOption({
    flags: ["--repeat-last-n"],
    group: "Sampling",
    range: { min: 0 },
    fallback: 64,
    help: "Number of latest tokens that the repeat penalty considers",
  }),
  seed: countOption({
    flags: ["-s", "--seed"],
    group: "Sampling",
    range: { min: 0, max: 2 ** 32 - 1 },
    fallback: undefined,
    fallbackText: "random",
    help: "Random seed; the same seed gives the same text",
  }),
  stop: listOption({
    flags: ["--stop"],
    group: "Sampling",
    help: String.raw`Stop before this text, which may contain \n, \t, \\ and \u{hex}`,
  }, unescapeText),
};

/** How pages are read. */
export const sparseOptions = {
  sparse: choiceOption({
    flags: ["--sparse"],
    group: "Sparse attention",
    choices: ["auto", "on", "off"],
    fallback: "auto",
    help:
      "on reads only the KV pages that matter once the context exceeds the budget; auto does so from the length on where a " +
      "step becomes at least 10 % faster; off reads all pages",
  }),
  sparseBudget: tokenCountOption({
    flags: ["--sparse-budget"],
    group: "Sparse attention",
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "1024, or the model's own",
    help: "Tokens read per decode step and KV head, a multiple of the page size",
  }),
  pageSize: numberChoiceOption({
    flags: ["--page-size"],
    group: "Sparse attention",
    choices: PAGE_SIZES,
    fallback: undefined,
    fallbackText: "8, or the model's own",
    help: "Tokens per page",
  }),
  sparseScorer: choiceOption({
    flags: ["--sparse-scorer"],
    group: "Sparse attention",
    choices: SCORERS,
    fallback: undefined,
    fallbackText: "diag, or the model's own",
    help: "How pages are scored",
  }),
  sparseLambda: lambdaOption,
  sparseSink: countOption({
    flags: ["--sparse-sink"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "1, or the model's own",
    help: "Number of first pages that are always read",
  }),
  sparseRecent: countOption({
    flags: ["--sparse-recent"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "2, or the model's own",
    help: "Number of last pages that are always read",
  }),
  ...denseLayers,
  sparseLevels: levelsOption,
  verify: optionalCountOption({
    flags: ["--verify"],
    group: "Sparse attention",
    range: { min: 1 },
    alone: 1,
    help: "Also compute every Nth decode step with all pages (every step without N) and report how far the two differ",
  }),
  verifyLimit: numberOption({
    flags: ["--verify-limit"],
    group: "Sparse attention",
    placeholder: "KL",
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "none",
    help:
      "Read all pages from a step on that --verify finds more than KL nats from dense decoding, until a verified step is within " +
      "the limit again",
  }),
  ...prefillOptions,
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
    help: "Print the text only when it is complete",
  }),
};

/** The option table of `generate`. */
export const generateOptions = {
  ...inputOptions,
  ...placeOptions,
  ...samplingOptions,
  ...sparseOptions,
  ...promptCacheOptions,
  ...outputOptions,
  ...commonOptions,
};

/** The values of `generate`'s options. */
export type GenerateFlags = Values<typeof generateOptions>;
/** The values that decide what is computed, not how it is shown. */
export type ModelFlags = Omit<
  GenerateFlags,
  "jsonl" | "ordered" | "parallel" | "json" | "noStream" | "verify" | "verifyLimit"
>;
