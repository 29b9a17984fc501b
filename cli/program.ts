import { bench } from "./bench/bench.ts";
import { cache } from "./cache/cache.ts";
import { completionsMenu } from "./completions/completions.ts";
import { generate } from "./generate.ts";
import { inspectPages } from "./inspect/inspect.ts";
import type { Menu } from "./menu.ts";
import { plan } from "./plan/plan.ts";

/** The whole program: what help, completions and the manual page are generated from. */
export const program: Menu = {
  name: "pagesift",
  summary: "Run language models over long text, reading only the pages of the KV cache that matter",
  noun: "command",
  examples: [
    'pagesift generate "Once upon a time" -n 60',
    'pagesift generate "Who tells this story?" < book.txt',
    'pagesift inspect-pages "The pass key is 71432. The pass key is"',
  ],
  commands: [generate, bench, inspectPages, plan, cache, completionsMenu(() => program)],
};

/** What `pagesift` prints without arguments: where to begin. */
export function orientation(): string {
  const [prompt, question, inspection] = program.examples;
  const commands = program.commands.map(({ name }) => name).join(", ");
  return `Pagesift runs language models over long text and reads only the pages of the KV cache that matter.

Continue a prompt with the bundled model, ask about a text, or see which pages mattered:

  ${prompt}
  ${question}
  ${inspection}

Commands: ${commands}
Run "pagesift --help" for an overview, "pagesift COMMAND --help" for the options of a command.
`;
}
