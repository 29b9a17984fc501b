import { defaultPromptFolder } from "../engine/prompts/prompt_folder.ts";
import type { PromptCacheOptions } from "../engine/saved_prompts.ts";
import type { CommandRun } from "./command_run.ts";
import type { Values } from "./options/option.ts";
import type { promptCacheOptions } from "./options/prompt_cache.ts";

/** Where prompts are saved: `flag` is the value of `--prompt-cache`, `""` without a folder. @throws {PagesiftError} of kind "usage" */
export function promptFolder(flag: string, { world }: Pick<CommandRun, "world">): string {
  const named = flag || world.env("PAGESIFT_PROMPT_CACHE") || defaultPromptFolder((name) => world.env(name));
  return named.startsWith("~/") ? `${world.env("HOME") ?? "~"}${named.slice(1)}` : named;
}

/** The engine's option for these flags; nothing if prompts are not to be saved. */
export function promptCacheOf(
  { promptCache: flag, promptCacheLimit: limitBytes }: Values<typeof promptCacheOptions>,
  modelName: string,
  session: CommandRun,
): { promptCache?: PromptCacheOptions } {
  if (flag === undefined && !session.world.env("PAGESIFT_PROMPT_CACHE")) return {};
  const onWarning = (text: string): void => session.output.warn(text);
  return { promptCache: { folder: promptFolder(flag ?? "", session), limitBytes, modelName, onWarning } };
}
