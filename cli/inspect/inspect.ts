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
    "Reads a prompt, decodes as generate does, and shows which pages of the text mattered: which pages the scorer chose,\n" +
    "what share of the exact attention each received, and which important pages it missed.",
    "Attention is not cause: a page can receive attention and change nothing. --ablate shows whether a page mattered.",
  ],
  notes: [
    "Layers and KV heads count from 0, steps from 1. Without --layer, --head or --step, values are averages over all of\n" +
    "them. Scores are in standard deviations from the mean page. Pages that are always read, the first and the latest,\n" +
    "are summed and not listed.",
    "Exit codes: as for generate; 3 also for a trace that is damaged, truncated or of another version. The files of --html\n" +
    "and --trace are checked before the run starts.",
  ],
};

/** `pagesift inspect-pages`: which pages of a prompt mattered. Its modules are imported when it runs. */
export const inspectPages: Command = defineCommand({
  name: "inspect-pages",
  summary: "See which pages of a prompt mattered, and which were missed",
  help,
  options: inspectOptions,
  run: async (flags, words, session) => await (await import("./run.ts")).runInspect(flags, words, session),
});
