import { type Command, defineCommand } from "../command.ts";
import { planOptions } from "../options/plan.ts";

const help = {
  usage: ["plan [OPTIONS]", "plan --shape NAME -c CONTEXT [OPTIONS]"],
  examples: [
    "pagesift plan -c 16k --parallel 4",
    "pagesift plan --shape qwen3-8b -c 32k --kv-type q8 --measure",
    "pagesift plan --shape llama-3.3-70b --weights q4_k -c 32k --devices 0,1",
  ],
  description: [
    "Says what a run would allocate on the device, before any weight is read: bytes of weights, keys and values, page\n" +
    "statistics and working memory, whether they fit, the largest context and batch, and what a decode step reads.",
    "With --devices, all bytes are those of each device.",
    "The total is exact to the byte for a run whose prompts and answers fill the context. Scratch memory that operations\n" +
    "share and the libraries of a GPU come on top.",
  ],
  notes: [
    "Token counts accept 32k or 32K, which both mean 32 x 1024.",
    "Exit codes: 0 done, whether or not the run fits; 2 usage, or a context beyond the model's; 3 model invalid; 5 no\n" +
    "usable device; 6 more memory than any machine has; 7 network or cache.",
  ],
};

/** `pagesift plan`: what a run needs. Imports its implementation when it runs. */
export const plan: Command = defineCommand({
  name: "plan",
  summary: "See what memory a run needs, what fits, and how fast it can be",
  help,
  options: planOptions,
  run: async (flags, words, session) => await (await import("./run.ts")).runPlan(flags, words, session),
});
