import { choiceOption, switchOption } from "./option.ts";

const group = "Output and messages";

/** Rows that every command's table ends with. */
export const commonOptions = {
  quiet: switchOption({ flags: ["-q", "--quiet"], group, help: "Print no warnings, notices, progress or stats" }),
  verbose: switchOption({
    flags: ["-v", "--verbose"],
    group,
    help: "Print stats and a line for every stage to stderr even where it is no terminal",
  }),
  color: choiceOption({
    flags: ["--color"],
    group,
    help: "Colour and progress on stderr; auto means on a terminal, unless NO_COLOR is set or TERM is dumb",
    choices: ["auto", "on", "off"],
    fallback: "auto",
  }),
  help: switchOption({ flags: ["-h", "--help"], group, help: "Print this help" }),
  version: switchOption({ flags: ["--version"], group, help: "Print the version" }),
};
