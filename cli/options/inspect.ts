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
    help: "Show one layer, counted from 0",
  }),
  head: countOption({
    flags: ["--head"],
    group,
    range: { min: 0 },
    fallback: undefined,
    fallbackText: "all",
    help: "Show one KV head, counted from 0",
  }),
  step: countOption({
    flags: ["--step"],
    group,
    range: { min: 1 },
    fallback: undefined,
    fallbackText: "all",
    help: "Show one decode step, counted from 1",
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
    help: "Order of the pages: the scorer's score, exact attention mass, times selected, or mass missed",
  }),
  byFile: switchOption({ flags: ["--by-file"], group, help: "Sum the importance of pages per input file" }),
  compare: textOption({
    flags: ["--compare"],
    group,
    placeholder: "LIST",
    fallback: undefined,
    help: "Compare scorers on the same steps: any of unique, diag, quest, mean and oracle",
  }),
  ablate: choiceOption({
    flags: ["--ablate"],
    group,
    choices: ["page", "file"],
    fallback: undefined,
    help: "Mask each listed page, or all pages of each file, and show how the log-probability of the answer changes",
  }),
  tsv: switchOption({ flags: ["--tsv"], group, help: "Print one table as tab-separated values" }),
  json: switchOption({ flags: ["--json"], group, help: "Print one JSON object, as described in docs/inspect.md" }),
  html: textOption({
    flags: ["--html"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Also write a report for the browser, as one self-contained file",
  }),
  trace: textOption({
    flags: ["--trace"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Also record the run for --replay, including the text of the prompt",
  }),
  replay: textOption({
    flags: ["--replay"],
    group,
    placeholder: "FILE",
    fallback: undefined,
    help: "Show a recorded trace instead of running a model; takes no prompt",
  }),
  maxTokens: {
    ...maxTokens,
    flags: ["-n", "--n-predict", "--max-tokens", "--steps"],
    group,
    fallback: 16,
    help: "Maximum number of decode steps to inspect",
  },
  ...inherited,
};

/** The values of `inspect-pages`' options. */
export type InspectFlags = Values<typeof inspectOptions>;
