import type { SamplingOptions } from "../types.ts";

/**
 * The options, and the model's for those that are missing. A temperature of 0 asks for the most likely token: then none of the model's
 * apply.
 */
export function withSamplingDefaults<T extends SamplingOptions>(defaults: SamplingOptions, options: T): T {
  return options.temperature === 0 ? options : { ...defaults, ...options };
}

/** "temperature 0.6, top-k 20", without what is off. */
export function describeSampling(
  { temperature = 0, topK = 0, topP = 1, minP = 0, repeatPenalty = 1 }: SamplingOptions,
): string {
  const parts = [`temperature ${temperature}`];
  if (topK !== 0) parts.push(`top-k ${topK}`);
  if (topP !== 1) parts.push(`top-p ${topP}`);
  if (minP !== 0) parts.push(`min-p ${minP}`);
  if (repeatPenalty !== 1) parts.push(`repeat penalty ${repeatPenalty}`);
  return parts.join(", ");
}
