import type { ModelConfig } from "./config.ts";
import { PagesiftError } from "../errors.ts";

/** @throws {PagesiftError} of kind "usage" */
export function checkMaxTokens(maxTokens: number | undefined): void {
  if (maxTokens === undefined || (Number.isSafeInteger(maxTokens) && maxTokens >= 1)) return;
  throw new PagesiftError("usage", `maxTokens is ${maxTokens}, wanted a whole number from 1`);
}

/** The config with a smaller context, where one is asked for. @throws {PagesiftError} of kind "usage" */
export function limitContext(config: ModelConfig, maxContext: number | undefined): ModelConfig {
  if (maxContext === undefined) return config;
  if (!Number.isSafeInteger(maxContext) || maxContext < 1 || maxContext > config.maxContext) {
    throw new PagesiftError(
      "usage",
      `Context of ${maxContext} tokens is not possible, wanted 1 to ${config.maxContext}, which the model was made for`,
    );
  }
  return { ...config, maxContext };
}
