import type { Command } from "../command.ts";
import { defineCommand } from "../command.ts";
import type { Menu } from "../menu.ts";
import { benchAttentionOptions, benchGenerateOptions } from "../options/bench.ts";
import { benchQualityOptions } from "../options/bench_quality.ts";

const lists =
  "Lists have commas between their values, and every combination is measured. 4k means 4 x 1024 and 1m 1024 x 1024, as\n" +
  "in llama-bench.";
const provenance =
  "Every row is a median over repetitions in which the arms take turns, with its 10th and 90th percentile. A row of\n" +
  "sparse attention is only printed when the kernels counted that they selected, a dense one when they did not.";
const codes =
  "Exit codes: 0 done; 1 internal error, output not writable, or a row that is not what it says; 2 usage; 3 model\n" +
  "invalid; 4 longer than the model's context; 5 no usable device; 6 out of memory; 7 network or cache; 8 numeric\n" +
  "failure. All lists, files and memory are checked before the first measurement. Ctrl-C prints the rows that are\n" +
  "there.";

/** Modules that measure are imported when something is measured, so that `--help` needs none of them. */
const attention: Command = defineCommand({
  name: "attention",
  summary: "One layer's decode attention, in parts, sparse and dense",
  help: {
    usage: ["bench attention [OPTIONS]"],
    description: [
      "Times one layer of a decode step: append, score, select, attend, sparse (all but append in one call, as generate\n" +
      "runs it) and dense, over synthetic keys whose means drift from page to page. Page recall compares the chosen pages\n" +
      "with those of highest exact softmax mass. On synthetic keys it shows whether selection works, not how well it does\n" +
      "on a model.",
      provenance,
    ],
    notes: [lists, codes],
  },
  options: benchAttentionOptions,
  run: async (flags, words, session) => await (await import("./attention.ts")).runAttention(flags, words, session),
});

const generate: Command = defineCommand({
  name: "generate",
  summary: "Prompts and decode steps of a model, dense and sparse",
  help: {
    usage: ["bench generate [OPTIONS]"],
    description: [
      "Times a whole model, from a folder or of a shape with random weights: prompts (pp512) and decode steps (tg128), at\n" +
      "depths of a filled cache (tg128 @ d32768). Decode steps run dense and sparse in turn; prompts are always dense.",
      provenance,
    ],
    notes: [lists, codes],
  },
  options: benchGenerateOptions,
  run: async (flags, words, session) => await (await import("./generate.ts")).runGenerate(flags, words, session),
});

const quality: Command = defineCommand({
  name: "quality",
  summary: "Facts found and prose predicted, by budget and scorer",
  help: {
    usage: ["bench quality [OPTIONS]"],
    description: [
      "Asks a model for facts planted in prose, and lets it predict the prose itself, with dense attention, with the pages\n" +
      "of highest exact softmax mass (oracle), and with every scorer, at every budget. Documents are read densely; question,\n" +
      "answer and prose are fed a token at a time, so every step decodes as the arm says.",
      "Retrieval comes with Wilson's 95 % interval, losses with the interval of their paired difference to dense. A sparse\n" +
      "arm that beats dense by more than noise is an alarm, not a result.",
    ],
    notes: [lists, codes],
  },
  options: benchQualityOptions,
  run: async (flags, words, session) => await (await import("./quality.ts")).runQuality(flags, words, session),
});

/** `pagesift bench`: what can be measured. */
export const bench: Menu = {
  name: "bench",
  summary: "Measure what sparse attention costs and buys on this machine",
  noun: "subject",
  commands: [attention, generate, quality],
};
