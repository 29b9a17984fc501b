import type { Command } from "../command.ts";
import { defineCommand } from "../command.ts";
import type { Menu } from "../menu.ts";
import { benchAttentionOptions, benchGenerateOptions } from "../options/bench.ts";
import { benchQualityOptions } from "../options/bench_quality.ts";

const lists =
  "Lists are comma-separated, and every combination is measured. 4k means 4 x 1024 and 1m means 1024 x 1024, as in\n" +
  "llama-bench.";
const provenance =
  "Every row is a median over repetitions in which all variants take turns, with the 10th and 90th percentile. A sparse\n" +
  "row is printed only if the kernels' counters confirm that they selected pages, a dense row only if they did not.";
const codes =
  "Exit codes: 0 done; 1 internal error, output not writable, or a row that did not run as labelled; 2 usage; 3 model\n" +
  "invalid; 4 longer than the model's context; 5 no usable device; 6 out of memory; 7 network or cache; 8 numeric\n" +
  "failure. Lists, files and memory are checked before the first measurement. Ctrl-C prints the rows measured so far.";

/** The measuring modules are imported on demand, so that `--help` loads none of them. */
const attention: Command = defineCommand({
  name: "attention",
  summary: "One layer of decode attention, in parts, sparse and dense",
  help: {
    usage: ["bench attention [OPTIONS]"],
    examples: [
      "pagesift bench attention -c 4k,32k",
      "pagesift bench attention -c 32k --budget 256,512 --scorer unique,quest --plot attention.svg",
    ],
    description: [
      "Times one layer of a decode step over synthetic keys whose means drift from page to page: append, score, select,\n" +
      "attend, sparse (all but append in one call, as generate runs it) and dense. Page recall compares the chosen pages\n" +
      "with the pages of highest exact softmax mass. On synthetic keys, it shows that selection works, not how well it\n" +
      "works on a model.",
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
    examples: [
      "pagesift bench generate -p 512 -n 32 -d 0,8k",
      "pagesift bench generate --shape qwen3-0.6b -p 0 -n 16 -d 16k -o md",
    ],
    description: [
      "Times a whole model, loaded from a folder or generated from a shape with random weights: prompts (pp512) and decode\n" +
      "steps (tg128), after a given depth of cached tokens (tg128 @ d32768). Decode steps alternate between dense and\n" +
      "sparse; so do prompts with --prefill-budget.",
      provenance,
    ],
    notes: [lists, codes],
  },
  options: benchGenerateOptions,
  run: async (flags, words, session) => await (await import("./generate.ts")).runGenerate(flags, words, session),
});

const quality: Command = defineCommand({
  name: "quality",
  summary: "Retrieval and prose loss, by budget and scorer",
  help: {
    usage: ["bench quality [OPTIONS]"],
    examples: [
      "pagesift bench quality --task needle --budget 256",
      "pagesift bench quality --text book.txt -l 4k,8k --plot quality.svg",
    ],
    description: [
      "Asks a model for facts planted in prose, and has it predict the prose itself: with dense attention, with the pages of\n" +
      "highest exact softmax mass (oracle), and with every scorer at every budget. Documents are read densely. Question,\n" +
      "answer and prose are fed one token at a time, so every step decodes with the settings of its row.",
      "Retrieval is reported with Wilson's 95 % interval, loss with the interval of its paired difference from dense. A\n" +
      "sparse row that beats dense by more than noise is an alarm, not a result.",
    ],
    notes: [lists, codes],
  },
  options: benchQualityOptions,
  run: async (flags, words, session) => await (await import("./quality.ts")).runQuality(flags, words, session),
});

/** `pagesift bench` and its subjects. */
export const bench: Menu = {
  name: "bench",
  summary: "Measure what sparse attention costs and buys on this machine",
  noun: "subject",
  examples: ["pagesift bench attention -c 4k,32k", "pagesift bench generate -p 512 -n 32 -d 0,8k"],
  commands: [attention, generate, quality],
};
