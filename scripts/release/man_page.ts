/** The manual page, generated from the option tables and menus of the program. */
import config from "../../deno.json" with { type: "json" };
import type { Command } from "../../cli/command.ts";
import { describeFallback } from "../../cli/help.ts";
import { isMenu, type Menu } from "../../cli/menu.ts";
import type { Option, OptionTable } from "../../cli/options/option.ts";
import { program } from "../../cli/program.ts";

const ENVIRONMENT: readonly [name: string, text: string][] = [
  ["PAGESIFT_MODEL", "Model folder or hub name to use instead of the bundled model."],
  ["PAGESIFT_LIBRARY", "Path of the native library to load."],
  ["PAGESIFT_PROMPT_CACHE", "Folder of saved prompts; if set, prompts are saved without --prompt-cache."],
  ["PAGESIFT_HISTORY", "File of the lines entered in conversations."],
  ["HF_TOKEN", "Access token for gated models of the hub."],
  ["HF_HOME, HF_HUB_CACHE", "Cache of hub models."],
  ["HF_ENDPOINT", "Address of the hub."],
  ["HF_HUB_OFFLINE", "If set to 1, never download, as with --offline."],
  ["NO_COLOR", "If set, print no colour unless --color on is given."],
];

/** `pagesift.1` in roff, for man(1). */
export function manPage(): string {
  const name = program.name;
  return [
    `.TH ${name.toUpperCase()} 1 "" "${name} ${config.version}" "User Commands"`,
    ".SH NAME",
    roff(`${name} - ${program.summary.charAt(0).toLowerCase()}${program.summary.slice(1)}`),
    ".SH SYNOPSIS",
    `.B ${name}`,
    ".I COMMAND",
    "[\\fIOPTIONS\\fR]",
    ".SH DESCRIPTION",
    roff("The commands are described below. Without arguments, pagesift prints three commands to begin with."),
    ".SH EXAMPLES",
    literal(program.examples),
    ...sections(program, ""),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.map(([variable, text]) => `.TP\n.B ${variable}\n${roff(text)}`),
    "",
  ].join("\n");
}

/** A section for each command, in the order of the menus. */
function sections(menu: Menu, path: string): string[] {
  return menu.commands.flatMap((entry) => {
    const words = `${path}${entry.name}`;
    return isMenu(entry) ? sections(entry, `${words} `) : commandSection(entry, words);
  });
}

function commandSection({ summary, help, options }: Command, words: string): string[] {
  return [
    `.SH ${words.toUpperCase()}`,
    roff(`${summary}.`),
    literal(help.usage.map((line) => `pagesift ${line}`)),
    ...help.description.map(paragraph),
    ".PP\nExamples:",
    literal(help.examples),
    ...optionGroups(options),
    ...help.notes?.map(paragraph) ?? [],
  ];
}

function optionGroups(table: OptionTable): string[] {
  const groups = Map.groupBy(Object.values(table), ({ group }) => group);
  return [...groups].flatMap(([group, options]) => [`.SS ${roff(group)}`, ...options.map(optionEntry)]);
}

function optionEntry(option: Option<unknown>): string {
  const flags = option.flags.map((flag) => `\\fB${roff(flag)}\\fR`).join(", ");
  const name = `\\fI${roff(option.placeholder ?? "")}\\fR`;
  const value = option.placeholder === undefined ? "" : option.optionalValue ? `[=${name}]` : ` ${name}`;
  return `.TP\n${flags}${value}\n${roff([option.help, ...describeFallback(option)].join(" "))}`;
}

function paragraph(text: string): string {
  return `.PP\n${roff(text.replaceAll("\n", " "))}`;
}

/** Lines that are neither filled nor wrapped. */
function literal(lines: readonly string[]): string {
  return [".PP", ".nf", ".RS 4", ...lines.map(roff), ".RE", ".fi"].join("\n");
}

/** Text in roff: dashes can be copied, and no line is read as a request. */
function roff(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("~", "\\(ti").replaceAll("^", "\\(ha")
    .replace(/^(?=[.'])/gm, "\\&");
}
