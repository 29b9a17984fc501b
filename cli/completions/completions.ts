import { PagesiftError } from "../../engine/errors.ts";
import { type Command, defineCommand } from "../command.ts";
import type { Menu } from "../menu.ts";
import { commonOptions } from "../options/common.ts";
import { bashCompletions } from "./bash.ts";
import { fishCompletions } from "./fish.ts";
import { zshCompletions } from "./zsh.ts";

/** A shell, and how to turn its completions on. */
interface Shell {
  name: string;
  examples: readonly string[];
  script(program: Menu): string;
}

/** The shells that have completions. */
export const SHELLS: readonly Shell[] = [
  {
    name: "bash",
    examples: [
      "source <(pagesift completions bash)",
      "pagesift completions bash > ~/.local/share/bash-completion/completions/pagesift",
    ],
    script: bashCompletions,
  },
  {
    name: "zsh",
    examples: [
      "source <(pagesift completions zsh)",
      'pagesift completions zsh > "${fpath[1]}/_pagesift"',
    ],
    script: zshCompletions,
  },
  {
    name: "fish",
    examples: [
      "pagesift completions fish | source",
      "pagesift completions fish > ~/.config/fish/completions/pagesift.fish",
    ],
    script: fishCompletions,
  },
];

/** `pagesift completions`. The program contains this menu, so it is passed as a function. */
export function completionsMenu(program: () => Menu): Menu {
  return {
    name: "completions",
    summary: "Print a completion script for bash, zsh or fish",
    noun: "shell",
    examples: ["source <(pagesift completions bash)", "pagesift completions fish | source"],
    commands: SHELLS.map((shell) => completionsCommand(shell, program)),
  };
}

function completionsCommand({ name, examples, script }: Shell, program: () => Menu): Command {
  return defineCommand({
    name,
    summary: `Completion script for ${name}`,
    help: {
      usage: [`completions ${name}`],
      examples,
      description: [
        `Prints a script that completes commands, flags, choices and file names in ${name}. The first example turns it\n` +
        "on in the running shell, the second in every new one. 'deno task install' installs the script by itself.",
      ],
    },
    options: commonOptions,
    run: (_, words, { output }) => {
      if (words[0] !== undefined) {
        throw new PagesiftError("usage", `completions ${name} takes no words, found "${words[0]}"`);
      }
      output.result(script(program()));
      return Promise.resolve();
    },
  });
}
