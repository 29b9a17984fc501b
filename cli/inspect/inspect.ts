import { type Command, defineCommand } from "../command.ts";
import { inspectOptions } from "../options/inspect.ts";

const help = {
  usage: [
    "inspect-pages [OPTIONS] [PROMPT]",
    'inspect-pages [OPTIONS] -f FILE -f FILE "QUESTION"',
    "inspect-pages --replay FILE [OPTIONS]",
  ],
  examples: [
    'pagesift inspect-pages -f book.txt "Who tells this story?" --html report.html',
    'pagesift inspect-pages -f notes.txt -f mail.txt "When is the meeting?" --by-file',
  ],
  description: [
    "Answers a prompt like generate and shows which pages of the text mattered: which pages each decode step read, what\n" +
    "share of dense attention each page has, and which important pages the scorer missed.",
    "Attention is not cause: the model may look at a page and change nothing. --ablate shows whether a page mattered.",
  ],
  notes: [
    "Layers and KV heads count from 0, steps from 1. Without a selector, figures are averages. Score is in standard\n" +
    "deviations from the mean page. The first and latest pages are always read; they are summed and never listed.",
    "Exit codes are those of generate. Code 3 also means that a trace is damaged, cut short or of another version. The files\n" +
    "of --html and --trace are opened before the model runs.",
  ],
};

/** `pagesift inspect-pages`: which pages of a prompt mattered. Imports its implementation when it runs. */
export const inspectPages: Command = defineCommand({
  name: "inspect-pages",
  summary: "See which pages of a prompt mattered, and which were missed",
  help,
  options: inspectOptions,
  run: async (flags, words, session) => await (await import("./run.ts")).runInspect(flags, words, session),
});
