import { PagesiftError } from "../engine/errors.ts";
import type { Command } from "./command.ts";
import { renderHelp } from "./help.ts";
import { commonOptions } from "./options/common.ts";
import { didYouMean } from "./suggest.ts";

/** A word of the command line that requires another word after it. */
export interface Menu {
  readonly name: string;
  /** One line for the program's own help. */
  readonly summary: string;
  /** The word for its entries in messages. */
  readonly noun: string;
  /** Whole command lines to copy. */
  readonly examples: readonly string[];
  readonly commands: readonly Entry[];
}

export type Entry = Command | Menu;

export function isMenu(entry: Entry): entry is Menu {
  return "commands" in entry;
}

/** The entry of this name. @throws {PagesiftError} of kind "usage" that lists the entries, or suggests the closest one */
export function entryOf(menu: Menu, name: string): Entry {
  const entry = menu.commands.find((each) => each.name === name);
  if (entry !== undefined) return entry;
  const suggestion = didYouMean(name, menu.commands.map((each) => each.name));
  throw new PagesiftError(
    "usage",
    `Unknown ${menu.noun} "${name}"${suggestion || `; ${menu.noun}s: ${namesOf(menu)}`}`,
  );
}

export function noEntry(menu: Menu): PagesiftError {
  return new PagesiftError("usage", `No ${menu.noun} given; ${menu.noun}s: ${namesOf(menu)}; --help shows more`);
}

/** The help of a menu. `path`: the words that lead to it, each followed by a space. */
export function menuHelp(menu: Menu, path: string): string {
  const list = menu.commands.map(({ name, summary }) => `  ${name.padEnd(16)}${summary}`).join("\n");
  const noun = menu.noun.toUpperCase();
  const title = `${noun.charAt(0)}${menu.noun.slice(1)}s`;
  return renderHelp({
    usage: [`${path}${noun} [OPTIONS]`],
    examples: menu.examples,
    description: [`${menu.summary}.`],
    notes: [`${title}:\n${list}`, `pagesift ${path}${noun} --help lists the options of one ${menu.noun}.`],
  }, menuOptions);
}

/** The option table of a menu. */
export const menuOptions = {
  help: { ...commonOptions.help, group: "Options" },
  version: { ...commonOptions.version, group: "Options" },
};

function namesOf(menu: Menu): string {
  return menu.commands.map(({ name }) => name).join(", ");
}
