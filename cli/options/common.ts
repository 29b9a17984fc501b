import { choiceOption, switchOption } from "./option.ts";

const group = "Output and messages";

/** The options that every command has, at the end of its table. */
export const commonOptions = {
  quiet: switchOption({ flags: ["-q", "--quiet"], group, help: "Print no warnings, notices, progress or stats" }),
  verbose: switchOption({
    flags: ["-v", "--verbose"],
    group,
    help: "Print stats and a line per stage to stderr, even if it is not a terminal",
  }),
  color: choiceOption({
    flags: ["--color"],
    group,
    help: "Colour and progress; auto turns them on for a terminal, unless NO_COLOR is set or TERM is dumb",
    choices: ["auto", "on", "off"],
    fallback: "auto",
  }),
  help: switchOption({ flags: ["-h", "--help"], group, help: "Print this help" }),
  version: switchOption({ flags: ["--version"], group, help: "Print the version" }),
};
