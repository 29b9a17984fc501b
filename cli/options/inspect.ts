import { ORDERS } from "../../inspect/report.ts";
import { choiceOption, countOption, switchOption, textOption, type Values } from "./option.ts";
import { generateOptions } from "./generate.ts";

const { jsonl: _jsonl, json: _json, noStream: _noStream, maxTokens, ...inherited } = generateOptions;

const group = "Inspection";

/** The option table of `inspect-pages`: that of `generate`, with other output. */
export const inspectOptions = {
  layer: countOption({
    flags: ["--layer"],
    group,
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "all",
    help: "Look at one layer, from 0",
  }),
  head: countOption({
    flags: ["--head"],
    group,
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "all",
    help: "Look at one KV head, from 0",
  }),
  step: countOption({
    flags: ["--step"],
    group,
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "all",
    help: "Look at one decode step, from 1",
  }),
  top: countOption({
    flags: ["--top"],
    group,
    range: { min: 1, max: 100_000 },
    fallback: 10,
    help: "Pages to list",
  }),
  by: choiceOption({
    flags: ["--by"],
    group,
    choices: ORDERS,
    fallback: "mass",
    help: "What pages are ordered by: the scorer's score, exact attention mass, times selected, or mass missed",
  }),
  byFile: switchOption({ flags: ["--by-file"], group, help: "Sum the importance of pages by input file" }),
  compare: textOption({
    flags: ["--compare"],
    group,
    placeholder: "LIST",
    fallback: undefined,
    help: "Put scorers side by side on the same steps, of unique, diag, quest, mean and oracle",
  }),
  ablate: choiceOption({
    flags: ["--ablate"],
    group,
    choices: ["page", "file"],
    fallback: undefined,
    help: "Mask each of the listed pages, or all pages of each file, and show how the answer's log-probability changes",
  }),
  text: switchOption({
    flags: ["--text"],
    group,
    help: "Show the passages around the top pages, like a search result, instead of the tables",
  }),
  tsv: switchOption({ flags: ["--tsv"], group, help: "Print one table with tabs between its columns" }),
  json: switchOption({ flags: ["--json"], group, help: "Print one JSON object, as docs/inspect.md has it" }),
  html: textOption({
    flags: ["--html"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Write a report for a browser as well: one file that loads nothing",
  }),
  trace: textOption({
    flags: ["--trace"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Keep all that was seen, the prompt's text too, so that --replay can show it again",
  }),
  replay: textOption({
    flags: ["--replay"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Show a trace instead of running a model; takes no prompt",
  }),
  maxTokens: {
    ...maxTokens,
    flags: ["-n", "--n-predict", "--max-tokens", "--steps"],
    group,
    fallback: 16,
    help: "Decode steps to look at, at most",
  },
  ...inherited,
};

/** The values of `inspect-pages`' options. */
export type InspectFlags = Values<typeof inspectOptions>;
