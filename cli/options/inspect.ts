import { ORDERS } from "../../inspect/report.ts";
import { choiceOption, countOption, switchOption, textOption, type Values } from "./option.ts";
import { generateOptions } from "./generate.ts";

const {
  jsonl: _jsonl,
  ordered: _ordered,
  parallel: _parallel,
  json: _json,
  noStream: _noStream,
  maxTokens,
  ...inherited
} = generateOptions;

const group = "Inspection";

/** The option table of `inspect-pages`: the options of `generate` with other output. */
export const inspectOptions = {
  layer: countOption({
    flags: ["--layer"],
    group,
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "all",
    help: "Show one layer, from 0",
  }),
  head: countOption({
    flags: ["--head"],
    group,
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "all",
    help: "Show one KV head, from 0",
  }),
  step: countOption({
    flags: ["--step"],
    group,
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "all",
    help: "Show one decode step, from 1",
  }),
  top: countOption({
    flags: ["--top"],
    group,
    range: { min: 1, max: 100_000 },
    fallback: 10,
    help: "Number of pages to list",
  }),
  by: choiceOption({
    flags: ["--by"],
    group,
    choices: ORDERS,
    fallback: "mass",
    help:
      "Order pages by the scorer's score, share of dense attention (mass), times read (selected), or attention missed",
  }),
  byFile: switchOption({ flags: ["--by-file"], group, help: "Add a table of importance by input file" }),
  compare: textOption({
    flags: ["--compare"],
    group,
    placeholder: "LIST",
    fallback: undefined,
    help: "Compare scorers on the same steps: unique, diag, quest, mean, oracle",
  }),
  ablate: choiceOption({
    flags: ["--ablate"],
    group,
    choices: ["page", "file"],
    fallback: undefined,
    help: "Mask each listed page, or all pages of each file, and show how the answer's log-probability changes",
  }),
  text: switchOption({
    flags: ["--text"],
    group,
    help: "Show the passages around the top pages, like a search result, instead of the tables",
  }),
  tsv: switchOption({ flags: ["--tsv"], group, help: "Print one table with tab-separated columns" }),
  json: switchOption({ flags: ["--json"], group, help: "Print one JSON object, described in docs/inspect.md" }),
  html: textOption({
    flags: ["--html"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Also write a report for a browser: one file that loads nothing",
  }),
  trace: textOption({
    flags: ["--trace"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Save the whole inspection, with the prompt's text, for --replay",
  }),
  replay: textOption({
    flags: ["--replay"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Show a trace without running a model; takes no prompt",
  }),
  maxTokens: {
    ...maxTokens,
    flags: ["-n", "--n-predict", "--max-tokens", "--steps"],
    group,
    fallback: 16,
    help: "Most decode steps to inspect",
  },
  ...inherited,
  chat: { ...inherited.chat, help: "Wrap the prompt in the model's chat template, as a user message" },
};

/** The values of `inspect-pages`' options. */
export type InspectFlags = Values<typeof inspectOptions>;
