import { PagesiftError } from "../../engine/errors.ts";
import { didYouMean } from "../suggest.ts";

/** The commands of a conversation, in the order of `/help`. */
const COMMANDS = {
  file: { argument: "PATH", help: "Add a text to the next question" },
  pages: {
    argument: "",
    help: "Show which parts of the conversation the last answer read; reads the conversation again",
  },
  stats: { argument: "", help: "Show the speed, memory and context of the last answer" },
  retry: { argument: "", help: "Answer the last question again" },
  system: { argument: "[TEXT]", help: "Replace the system message, or remove it" },
  save: { argument: "FILE", help: "Save the messages as JSON Lines" },
  load: { argument: "FILE", help: "Continue a saved conversation" },
  help: { argument: "", help: "Show this list" },
  quit: { argument: "", help: "End the conversation, as Ctrl-D does" },
};

export type CommandName = keyof typeof COMMANDS;

/** A command that the user entered; `argument` is the rest of the line. */
export interface ConversationCommand {
  name: CommandName;
  argument: string;
}

const NAMES = Object.keys(COMMANDS) as CommandName[];

/**
 * The command of a line, or undefined for a question. A path such as `/usr/bin` begins a question.
 *
 * @throws {PagesiftError} of kind "usage" for an unknown command, or one without its argument
 */
export function parseCommand(line: string): ConversationCommand | undefined {
  const [, word, rest = ""] = /^\/([a-z]+)(?:\s+(.*))?$/si.exec(line) ?? [];
  if (word === undefined) return undefined;
  const name = NAMES.find((each) => each === word);
  if (name === undefined) {
    const suggestion = didYouMean(`/${word}`, NAMES.map((each) => `/${each}`));
    throw new PagesiftError("usage", `Unknown command "/${word}"${suggestion || "; /help lists the commands"}`);
  }
  const argument = rest.trim();
  const wanted = COMMANDS[name].argument;
  if (argument === "" && wanted !== "" && !wanted.startsWith("[")) {
    throw new PagesiftError("usage", `/${name} requires an argument: /${name} ${wanted}`);
  }
  return { name, argument };
}

/** The text of `/help`. */
export function commandHelp(): string {
  const lines = NAMES.map((name) => `${`/${name} ${COMMANDS[name].argument}`.padEnd(15)}${COMMANDS[name].help}\n`);
  return lines.join("") +
    "A backslash at the end of a line continues it. Ctrl-C ends an answer, Ctrl-D the conversation.\n";
}

/** Candidates for the end of a line: commands, and paths after the commands that take one. `list` gives the names in a folder. */
export function completeCommand(line: string, list: (folder: string) => string[]): [string[], string] {
  const [, path] = /^\/(?:file|save|load)\s+(.*)$/.exec(line) ?? [];
  if (path !== undefined) {
    const folder = path.slice(0, path.lastIndexOf("/") + 1);
    return [list(folder).map((name) => folder + name).filter((each) => each.startsWith(path)), path];
  }
  const commands = NAMES.map((name) => `/${name}${COMMANDS[name].argument === "" ? "" : " "}`);
  return [line.startsWith("/") ? commands.filter((each) => each.startsWith(line)) : [], line];
}
