import { choiceOption, countOption, listOption, switchOption, textOption, type Values } from "./option.ts";
import { SHAPE_FORMATS } from "../../bench/shapes.ts";
import { commonOptions } from "./common.ts";
import { deviceOptions, modelOptions } from "./model.ts";
import { denseLayers, lambdaOption, levelsOption } from "./sparse.ts";

const pageSizes = {
  pageSize: textOption({
    flags: ["--page-size"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "8",
    help: "Tokens a page, of 8, 16, 32 and 64",
  }),
};

/** How pages are chosen: what subjects list, and what holds for a whole run. */
export const sparseOptions = {
  budget: textOption({
    flags: ["--budget", "--sparse-budget"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "512",
    help: "Tokens that a step reads a KV head, multiples of the page size",
  }),
  scorer: textOption({
    flags: ["--scorer", "--sparse-scorer"],
    group: "Sparse attention",
    placeholder: "LIST",
    fallback: "unique",
    help: "How pages are scored, of unique, diag, quest and mean",
  }),
  lambda: lambdaOption,
  sinkPages: countOption({
    flags: ["--sparse-sink"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 1,
    help: "First pages that are always read",
  }),
  recentPages: countOption({
    flags: ["--sparse-recent"],
    group: "Sparse attention",
    range: { min: 0 },
    fallback: 2,
    help: "Last pages that are always read",
  }),
  levels: levelsOption,
};

const repetitions = (fallback: number): { repetitions: ReturnType<typeof countOption<number>> } => ({
  repetitions: countOption({
    flags: ["-r", "--repetitions"],
    group: "Measuring",
    range: { min: 1, max: 10_000 },
    fallback,
    help: "How often every arm is timed; the arms take turns",
  }),
});

/** How results are written. */
export const resultOptions = {
  output: choiceOption({
    flags: ["-o", "--output"],
    group: "Output and messages",
    choices: ["table", "md", "csv", "json", "jsonl"],
    fallback: "table",
    help: "Format of the rows on stdout; csv and jsonl come row by row",
  }),
  plot: textOption({
    flags: ["--plot"],
    group: "Output and messages",
    placeholder: "FILE",
    fallback: undefined,
    help: "Draw the result into an SVG file as well",
  }),
  peers: listOption({
    flags: ["--peers"],
    group: "Output and messages",
    placeholder: "FILE",
    help: "Put rows of another program beside ours, JSON Lines as docs/bench.md has them",
  }),
};

/** The option table of `bench attention`. */
export const benchAttentionOptions = {
  context: textOption({
    flags: ["-c", "--context"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "4k,32k",
    help: "Tokens in the cache of a sequence",
  }),
  batch: textOption({
    flags: ["-b", "--batch"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "1",
    help: "Sequences of a call",
  }),
  heads: textOption({
    flags: ["--heads"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "32/8",
    help: "Query and KV heads",
  }),
  headDim: textOption({
    flags: ["--head-dim"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "128",
    help: "Numbers a head, multiples of 16 up to 512",
  }),
  dtype: textOption({
    flags: ["--dtype"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "bf16",
    help: "Of keys and values, of bf16, f16 and f32",
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
    help: "Tokens of a prompt, a test each; 0 for none",
  }),
  decode: textOption({
    flags: ["-n", "--n-gen"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "128",
    help: "Tokens to decode, a test each; 0 for none",
  }),
  depth: textOption({
    flags: ["-d", "--n-depth"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "0,8k",
    help: "Tokens in the cache before, for every test",
  }),
  batch: textOption({
    flags: ["-b", "--batch"],
    group: "Measuring",
    placeholder: "LIST",
    fallback: "1",
    help: "Sequences that decode together, up to 64; prompts are taken in one by one",
  }),
  prefillDepth: switchOption({
    flags: ["--prefill-depth"],
    group: "Measuring",
    help: "Fill the cache up to the depth by a prefill of random tokens; without it random keys are put there at once",
  }),
  ...repetitions(5),
  ...modelOptions,
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
    help: "Instead of a model, random weights of this shape: qwen3-8b, qwen3-0.6b, llama-3.2-1b or default",
  }),
  ...pageSizes,
  ...sparseOptions,
  ...denseLayers,
  ...deviceOptions,
  ...resultOptions,
  ...commonOptions,
};

/** The values that all subjects have. */
export type BenchFlags = Values<
  typeof sparseOptions & typeof deviceOptions & typeof resultOptions & typeof commonOptions
>;
export type BenchAttentionFlags = Values<typeof benchAttentionOptions>;
export type BenchGenerateFlags = Values<typeof benchGenerateOptions>;
