import { choiceOption, countOption, numberChoiceOption, numberOption, tokenCountOption } from "./option.ts";

export const lambdaOption = numberOption({
  flags: ["--sparse-lambda"],
  group: "Sparse attention",
  range: { min: 0, max: 1000 },
  fallback: undefined,
  fallbackText: "0.5 for unique, 2 for diag",
  help: "Weight of the spread of a page's keys in its score",
});

const levels = {
  flags: ["--sparse-levels"],
  group: "Sparse attention",
  choices: [1, 2],
  help: "On CUDA, 2 scores groups of 8 pages first, or for diag copies in 8 bits, and 1 scores every page",
};

export const levelsOption = numberChoiceOption({
  ...levels,
  fallback: undefined,
  fallbackText: "2 for diag and for models with a sparsity.json, else 1",
});

/** For benchmarks of kernels, which have no model. */
export const kernelLevelsOption = numberChoiceOption({ ...levels, fallback: 2 });

export const denseLayers = {
  denseLayers: countOption({
    flags: ["--dense-layers"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 0,
    help: "Number of layers, from the first, that read all pages",
  }),
};

export const prefillOptions = {
  sparsePrefill: choiceOption({
    flags: ["--sparse-prefill"],
    group: "Sparse attention",
    choices: ["auto", "on", "off"],
    fallback: "off",
    help:
      "on also reads long prompts by pages that matter: each tile of 128 tokens chooses its own; auto does so where it is " +
      "faster, with models whose sparsity.json gives a budget for it; off reads all pages",
  }),
  prefillBudget: tokenCountOption({
    flags: ["--prefill-budget"],
    group: "Sparse attention",
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "4096, or the model's own",
    help: "Tokens before its own that a tile of the prompt reads per KV head, a multiple of the page size",
  }),
};
