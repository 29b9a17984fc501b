import { format } from "@std/fmt/bytes";
import { clearPrompts, listPrompts, type SavedPrompt } from "../../engine/prompts/prompt_folder.ts";
import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import { formatCount, plural } from "../../engine/text/format.ts";
import { type Command, defineCommand } from "../command.ts";
import type { CommandRun } from "../command_run.ts";
import type { Menu } from "../menu.ts";
import { commonOptions } from "../options/common.ts";
import { switchOption } from "../options/option.ts";
import { promptCacheFolder } from "../options/prompt_cache.ts";
import { promptFolder } from "../prompt_cache.ts";

const folder = {
  promptCache: {
    ...promptCacheFolder,
    fallbackText: "PAGESIFT_PROMPT_CACHE, else pagesift/prompts in the user's cache folder",
    help: "The folder of saved prompts",
  },
};

const list: Command = defineCommand({
  name: "list",
  summary: "Show saved prompts, the latest used first",
  help: {
    usage: ["cache list [OPTIONS]"],
    examples: ["pagesift cache list", "pagesift cache list --prompt-cache=/data/prompts --json"],
    description: ["Shows the prompts that --prompt-cache saved. Prompts of one model that begin alike count as one."],
    notes: ["Exit codes: 0 done; 2 the folder cannot be read."],
  },
  options: {
    ...folder,
    json: switchOption({ flags: ["--json"], group: "Output and messages", help: "Print one JSON object per line" }),
    ...commonOptions,
  },
  run: async (flags, words, session) => {
    const path = folderOf(flags, words, session);
    const prompts = await onFolder(path, () => listPrompts(path));
    if (flags.json) return session.output.result(prompts.map((prompt) => JSON.stringify(prompt) + "\n").join(""));
    session.output.result(table(prompts));
    const bytes = prompts.reduce((sum, prompt) => sum + prompt.bytes, 0);
    session.output.note(`${plural(prompts.length, "saved prompt")}, ${format(bytes)} in "${path}"`);
  },
});

const clear: Command = defineCommand({
  name: "clear",
  summary: "Remove all saved prompts",
  help: {
    usage: ["cache clear [OPTIONS]"],
    examples: ["pagesift cache clear", "pagesift cache clear --prompt-cache=/data/prompts"],
    description: ["Removes the files that --prompt-cache wrote, and nothing else in the folder."],
    notes: ["Exit codes: 0 done; 2 the folder cannot be read or changed."],
  },
  options: { ...folder, ...commonOptions },
  run: async (flags, words, session) => {
    const path = folderOf(flags, words, session);
    const { files, bytes } = await onFolder(path, () => clearPrompts(path));
    session.output.note(`Removed ${plural(files, "file")}, ${format(bytes)}, from "${path}"`);
  },
});

/** `pagesift cache` and its actions. */
export const cache: Menu = {
  name: "cache",
  summary: "Show or remove the prompts that --prompt-cache saved",
  noun: "action",
  examples: ["pagesift cache list", "pagesift cache clear"],
  commands: [list, clear],
};

function folderOf(
  { promptCache }: { promptCache: string | undefined },
  [word]: readonly string[],
  session: CommandRun,
): string {
  if (word !== undefined) throw new PagesiftError("usage", `Unexpected "${word}"; the folder is --prompt-cache=DIR`);
  return promptFolder(promptCache ?? "", session);
}

async function onFolder<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new PagesiftError("usage", `Cannot use "${path}" for saved prompts: ${reasonOf(error)}; check its rights`, {
      cause: error,
    });
  }
}

function table(prompts: readonly SavedPrompt[]): string {
  const rows = prompts.map(({ model, tokens, bytes, lastUsed }) => [
    model,
    formatCount(tokens),
    format(bytes),
    lastUsed.toISOString().slice(0, 16).replace("T", " "),
  ]);
  if (rows.length === 0) return "";
  const all = [["model", "tokens", "size", "last used (UTC)"], ...rows];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]): string =>
    row.map((cell, column) => column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)).join(
      "  ",
    );
  return all.map((row) => line(row) + "\n").join("");
}
