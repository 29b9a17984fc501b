import { choiceOption, countOption, listOption, switchOption, textOption, type Values } from "./option.ts";
import { SHAPE_FORMATS } from "../../bench/shapes.ts";
import { commonOptions } from "./common.ts";
import { deviceOptions, devicesOption, modelOptions } from "./model.ts";
import { denseLayers, kernelLevelsOption, lambdaOption } from "./sparse.ts";

export const pageSizes = {
  pageSize: textOption({
    flags: ["--page-size"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "8",
    help: "Tokens per page: any of 8, 16, 32 and 64",
  }),
};

/** How pages are chosen: settings that may be lists, and settings of the whole run. */
export const sparseOptions = {
  budget: textOption({
    flags: ["--budget", "--sparse-budget"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "512",
    help: "Tokens read per decode step and KV head, multiples of the page size",
  }),
  scorer: textOption({
    flags: ["--scorer", "--sparse-scorer"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "unique",
    help: "How pages are scored: any of unique, diag, quest and mean",
  }),
  lambda: lambdaOption,
  sinkPages: countOption({
    flags: ["--sparse-sink"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 1,
    help: "Number of first pages that are always read",
  }),
  recentPages: countOption({
    flags: ["--sparse-recent"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 2,
    help: "Number of last pages that are always read",
  }),
  levels: kernelLevelsOption,
};

const repetitions = (fallback: number): { repetitions: ReturnType<typeof countOption<number>> } => ({
  repetitions: countOption({
    flags: ["-r", "--repetitions"],
    group: "Measuring",
    range: { min: 1, max: 10_000 },
    fallback,
    help: "Times that each variant is measured; the variants take turns",
  }),
});

/** How results are written. */
export const resultOptions = {
  output: choiceOption({
    flags: ["-o", "--output"],
    group: "Output and messages",
    choices: ["table", "md", "csv", "json", "jsonl"],
    fallback: "table",
    help: "Format of the rows on stdout; csv and jsonl are printed row by row",
  }),
  plot: textOption({
    flags: ["--plot"],
    group: "Output and messages",
    placeholder: "FILE",
    fallback: undefined,
    help: "Also plot the result to an SVG file",
  }),
  peers: listOption({
    flags: ["--peers"],
    group: "Output and messages",
    placeholder: "FILE",
    help: "Add rows of another program to the table, from JSON Lines as described in docs/bench.md",
  }),
};

/** A shape instead of a model, and what its matrices are stored in. */
export const shapeOptions = {
  weights: choiceOption({
    flags: ["--weights"],
    group: "Model and device",
    choices: SHAPE_FORMATS,
    fallback: "auto",
    help: `${modelOptions.weights.help}; q4_k, q5_k and q6_k are for --shape only`,
  }),
  shape: textOption({
    flags: ["--shape"],
    group: "Model and device",
    placeholder: "NAME",
    fallback: undefined,
    help:
      "Use random weights of this shape instead of a model: qwen3-8b, qwen3-0.6b, llama-3.2-1b, llama-3.3-70b or default",
  }),
};

/** The option table of `bench attention`. */
export const benchAttentionOptions = {
  context: textOption({
    flags: ["-c", "--context"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "4k,32k",
    help: "Tokens in the KV cache of each sequence",
  }),
  batch: textOption({
    flags: ["-b", "--batch"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "1",
    help: "Sequences per call",
  }),
  heads: textOption({
    flags: ["--heads"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "32/8",
    help: "Query heads/KV heads",
  }),
  headDim: textOption({
    flags: ["--head-dim"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "128",
    help: "Head size, multiples of 16 up to 512",
  }),
  dtype: textOption({
    flags: ["--dtype"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "bf16",
    help: "Type of keys and values: any of bf16, f16 and f32",
  }),
  ...repetitions(15),
  ...pageSizes,
  ...sparseOptions,
  ...deviceOptions,
  ...resultOptions,
  ...commonOptions,
};

/** The option table of `bench generate`. */
export const benchGenerateOptions = {
  prompt: textOption({
    flags: ["-p", "--n-prompt"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "512",
    help: "Prompt tokens, one test per value; 0 skips the test",
  }),
  decode: textOption({
    flags: ["-n", "--n-gen"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "128",
    help: "Tokens to decode, one test per value; 0 skips the test",
  }),
  depth: textOption({
    flags: ["-d", "--n-depth"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "0,8k",
    help: "Tokens in the KV cache before each test",
  }),
  batch: textOption({
    flags: ["-b", "--batch"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "1",
    help: "Sequences that decode together, up to 64; prompts are read one at a time",
  }),
  prefillDepth: switchOption({
    flags: ["--prefill-depth"],
    group: "Measuring",
    help: "Fill the KV cache by a prefill of random tokens instead of writing random keys directly",
  }),
  prefillBudget: textOption({
    flags: ["--prefill-budget"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "0",
    help: "Also read prompts sparsely: tokens before its own that a tile reads per KV head; 0 stands for none",
  }),
  ...repetitions(5),
  ...modelOptions,
  ...shapeOptions,
  ...pageSizes,
  ...sparseOptions,
  ...denseLayers,
  ...deviceOptions,
  ...devicesOption,
  ...resultOptions,
  ...commonOptions,
};

/** What every subject writes, and where. */
export type ResultFlags = Values<typeof resultOptions>;
export type BenchAttentionFlags = Values<typeof benchAttentionOptions>;
export type BenchGenerateFlags = Values<typeof benchGenerateOptions>;
