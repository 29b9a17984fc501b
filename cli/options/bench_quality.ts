import { countOption, switchOption, textOption, tokenCountOption, type Values } from "./option.ts";
import { pageSizes, resultOptions, sparseOptions } from "./bench.ts";
import { deviceOptions, modelOptions } from "./model.ts";
import { promptCacheOptions } from "./prompt_cache.ts";
import { denseLayers, levelsOption } from "./sparse.ts";
import { commonOptions } from "./common.ts";

const { peers: _, ...writing } = resultOptions;

/** The option table of `bench quality`. */
export const benchQualityOptions = {
  task: textOption({
    flags: ["--task"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "needle,pairs,prose",
    help:
      "What to test: needle retrieves a few facts from prose, pairs one fact of many, prose predicts the text itself; " +
      "single, multikey, multivalue, multiquery, vt, cwe, fwe and qa are tasks after RULER, ruler all of them; " +
      "FILE.jsonl asks the questions of a file",
  }),
  chat: switchOption({
    flags: ["--chat"],
    group: "Measuring",
    help: "Ask the tasks after RULER and those of files in the model's chat template",
  }),
  length: textOption({
    flags: ["-l", "--length"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "4k",
    help: "Tokens per document",
  }),
  text: textOption({
    flags: ["--text"],
    group: "Measuring",
    placeholder: "FILE",
    fallback: undefined,
    fallbackText: "a chapter of The War of the Worlds",
    help: "Text to build the documents from",
  }),
  documents: countOption({
    flags: ["--documents"],
    group: "Measuring",
    range: { min: 1, max: 10_000 },
    fallback: 3,
    help: "Documents per length, taken a quarter of the text apart",
  }),
  facts: countOption({
    flags: ["--facts"],
    group: "Measuring",
    range: { min: 1, max: 60 },
    fallback: 6,
    help: "Questions per document, in the tasks that can ask several",
  }),
  proseTokens: tokenCountOption({
    flags: ["--prose"],
    group: "Measuring",
    range: { min: 16 },
    fallback: 128,
    help: "Tokens to predict after each document",
  }),
  seed: countOption({
    flags: ["-s", "--seed"],
    group: "Measuring",
    range: { min: 0, max: 2 ** 32 - 1 },
    fallback: 1,
    help: "The same seed asks the same questions",
  }),
  ...modelOptions,
  ...pageSizes,
  ...sparseOptions,
  levels: levelsOption,
  budget: { ...sparseOptions.budget, fallback: "128,256,512" },
  scorer: {
    ...sparseOptions.scorer,
    fallback: "unique,diag,quest,mean",
    help: "How pages are scored: any of unique, diag, quest and mean; diag:2 sets the weight of the spread",
  },
  ...denseLayers,
  prefillBudget: tokenCountOption({
    flags: ["--prefill-budget"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 0,
    help: "Tokens before its own that a tile of a document reads per KV head, in all arms; 0 reads documents densely",
  }),
  ...deviceOptions,
  ...promptCacheOptions,
  ...writing,
  ...commonOptions,
};

/** The values of `bench quality`'s options. */
export type BenchQualityFlags = Values<typeof benchQualityOptions>;
