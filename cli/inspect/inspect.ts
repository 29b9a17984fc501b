import { type Command, defineCommand } from "../command.ts";
import { inspectOptions } from "../options/inspect.ts";

const help = {
  usage: [
    "inspect-pages [OPTIONS] [PROMPT]",
    'inspect-pages [OPTIONS] -f FILE -f FILE "QUESTION"',
    "inspect-pages --replay FILE [OPTIONS]",
  ],
  description: [
    "Reads a prompt and takes decode steps as generate does, and shows which pages of the text mattered: which the scorer\n" +
    "chose, what share of exact attention each had, and which were wanted and missed.",
    "Share of attention is not cause: a page may be looked at and change nothing. --ablate shows whether it did.",
  ],
  notes: [
    "Layers and KV heads count from 0, steps from 1. What is not named is averaged over. Score is in standard deviations\n" +
    "from the mean page. Pages that are always read, the first and the latest, are summed and never listed.",
    "Exit codes: those of generate; 3 too for a trace that is damaged, cut short or of another version. --html and --trace\n" +
    "are tried before anything is computed.",
  ],
};

/** `pagesift inspect-pages`: which pages of a prompt mattered. What it needs is imported when it runs. */
export const inspectPages: Command = defineCommand({
  name: "inspect-pages",
  summary: "See which pages of a prompt mattered, and which were missed",
  help,
  options: inspectOptions,
  run: async (flags, words, session) => await (await import("./run.ts")).runInspect(flags, words, session),
});
