import { optionalPathOption, sizeOption } from "./option.ts";

const group = "Prompt cache";

/** Where prompts are saved. */
export const promptCacheFolder = optionalPathOption({
  flags: ["--prompt-cache"],
  group,
  fallbackText: "off, or PAGESIFT_PROMPT_CACHE",
  help:
    "Save what reading the prompt computes in DIR, and read the beginning of the next prompt from there. Without DIR: " +
    "PAGESIFT_PROMPT_CACHE, else pagesift/prompts in the user's cache folder. DIR may be the next word if it begins with " +
    "/, ./, ../ or ~/",
});

export const promptCacheOptions = {
  promptCache: promptCacheFolder,
  promptCacheLimit: sizeOption({
    flags: ["--prompt-cache-limit"],
    group,
    fallback: 20e9,
    fallbackText: "20GB",
    help: "Remove the least recently used parts of saved prompts beyond this size",
  }),
};
