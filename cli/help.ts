import type { Option, OptionTable } from "./options/option.ts";

const TEXT_COLUMN = 34;
const LINE_WIDTH = 100;

/** What `--help` shows around the option table. */
export interface HelpText {
  /** Synopsis lines, without the program's name. */
  usage: readonly string[];
  /** Whole command lines to copy. */
  examples: readonly string[];
  /** Paragraphs before the options, each already broken into lines. */
  description: readonly string[];
  /** Lines after the options. */
  notes?: readonly string[];
}

/** The whole help of a command, options grouped under their headings in table order. */
export function renderHelp(text: HelpText, table: OptionTable): string {
  const groups = Map.groupBy(Object.values(table), (option) => option.group);
  const sections = [...groups].map(([group, options]) => `${group}:\n${options.map(describeOption).join("\n")}`);
  const usage = text.usage.map((line, index) => `${index === 0 ? "Usage:" : "      "} pagesift ${line}`).join("\n");
  const examples = `Examples:\n${text.examples.map((line) => `  ${line}`).join("\n")}`;
  return [usage, examples, ...text.description, ...sections, ...text.notes ?? []].join("\n\n") + "\n";
}

function describeOption(option: Option<unknown>): string {
  const placeholder = option.placeholder === undefined
    ? ""
    : option.optionalValue
    ? `[=${option.placeholder}]`
    : ` ${option.placeholder}`;
  const heading = `  ${option.flags.join(", ")}${placeholder}`;
  const lines = wrap([...option.help.split(" "), ...describeFallback(option)], LINE_WIDTH - TEXT_COLUMN);
  const indent = " ".repeat(TEXT_COLUMN);
  const fits = heading.length <= TEXT_COLUMN - 2;
  const first = fits ? heading.padEnd(TEXT_COLUMN) + lines.shift()! : heading;
  return [first, ...lines.map((line) => indent + line)].join("\n");
}

/** The end of an option's help: its default, which is not broken across lines, or nothing. */
export function describeFallback(option: Option<unknown>): string[] {
  const text = option.fallbackText ?? (option.fallback === undefined ? "" : String(option.fallback));
  return text === "" ? [] : [`[default: ${text}]`];
}

function wrap(words: readonly string[], width: number): string[] {
  const lines: string[] = [""];
  for (const word of words) {
    const line = lines.at(-1)!;
    if (line !== "" && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines;
}
