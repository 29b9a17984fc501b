import { isMenu, type Menu, menuOptions } from "../menu.ts";
import type { Option } from "../options/option.ts";

/** A place on the command line: the words that lead there, and what may follow. */
export interface Place {
  /** `["bench", "attention"]`; empty for the program itself. */
  readonly path: readonly string[];
  /** Words that may come next. */
  readonly words: readonly { readonly name: string; readonly summary: string }[];
  readonly options: readonly Option<unknown>[];
}

/** How the value of an option is completed. */
export type ValueKind = "none" | "choice" | "file" | "folder" | "text";

/** All places of a program, each menu before its entries. */
export function placesOf(menu: Menu, path: readonly string[] = []): Place[] {
  const entries = menu.commands.flatMap((entry): Place[] => {
    const below = [...path, entry.name];
    return isMenu(entry) ? placesOf(entry, below) : [{ path: below, words: [], options: Object.values(entry.options) }];
  });
  return [{ path, words: menu.commands, options: Object.values(menuOptions) }, ...entries];
}

/** The kind of an option's value, read from its placeholder. */
export function valueKind({ placeholder, choices, optionalValue }: Option<unknown>): ValueKind {
  if (placeholder === undefined || optionalValue) return "none";
  if (choices !== undefined) return "choice";
  const parts = placeholder.split("|");
  return parts.includes("FILE") ? "file" : parts.includes("DIR") ? "folder" : "text";
}

/** A text as one word of bash, zsh or fish; fish alone reads backslashes in such quotes. */
export function quoted(text: string, shell: "posix" | "fish"): string {
  if (shell === "fish") return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The first clause of an option's help, which fits beside its flag. */
export function shortHelp({ help }: Option<unknown>): string {
  return help.split(/; |: | \(may be/)[0] ?? help;
}
