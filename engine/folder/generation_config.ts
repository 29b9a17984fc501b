import { join } from "@std/path";
import type { Notice, SamplingOptions } from "../types.ts";
import { ConfigFields } from "./config_fields.ts";
import { readJsonFile } from "./json_file.ts";

/** What the engine takes from `generation_config.json`. */
export interface GenerationConfig {
  /** Tokens that end a generation; empty if the folder names none. */
  readonly eosTokenIds: readonly number[];
  /** How the makers of the model sample; empty unless the file sets `do_sample`. */
  readonly sampling: SamplingOptions;
  /** Values that cannot be used and are left out. */
  readonly notices: readonly Notice[];
}

type Sampled = "temperature" | "topK" | "topP" | "minP" | "repeatPenalty";

interface Field {
  option: Sampled;
  isValid: (value: number) => boolean;
  expected: string;
}

const FIELDS: Readonly<Record<string, Field>> = {
  temperature: { option: "temperature", isValid: (value) => value >= 0 && value <= 100, expected: "from 0 to 100" },
  top_k: {
    option: "topK",
    isValid: (value) => Number.isSafeInteger(value) && value >= 0,
    expected: "without a fraction, from 0",
  },
  top_p: { option: "topP", isValid: (value) => value > 0 && value <= 1, expected: "above 0 and up to 1" },
  min_p: { option: "minP", isValid: (value) => value >= 0 && value <= 1, expected: "from 0 to 1" },
  repetition_penalty: {
    option: "repeatPenalty",
    isValid: (value) => value > 0 && value <= 100,
    expected: "above 0 and up to 100",
  },
};

/**
 * Reads `generation_config.json` of a model folder. Where it is absent or names no end tokens, those of `config.json` count. Sampling
 * values that cannot be used are left out, with a warning.
 *
 * @throws {PagesiftError} of kind "model"
 */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig> {
  const own = await readFields(folder, "generation_config.json");
  const source = own.has("eos_token_id") ? own : await readFields(folder, "config.json");
  return Object.freeze({ eosTokenIds: source.tokenIds("eos_token_id"), ...parseSampling(own) });
}

async function readFields(folder: string, name: string): Promise<ConfigFields> {
  const file = join(folder, name);
  return new ConfigFields(await readJsonFile(file) ?? {}, file);
}

/** The temperature is 1 where the file samples and names none, as in the transformers library; everything else is off. */
export function parseSampling(fields: ConfigFields): Pick<GenerationConfig, "sampling" | "notices"> {
  if (fields.json["do_sample"] !== true) return { sampling: {}, notices: [] };
  const sampling: SamplingOptions = { temperature: 1 };
  const notices: Notice[] = [];
  for (const [name, { option, isValid, expected }] of Object.entries(FIELDS)) {
    if (!fields.has(name)) continue;
    const value = fields.json[name];
    // Some libraries write -1 for all tokens.
    if (name === "top_k" && value === -1) continue;
    if (typeof value === "number" && isValid(value)) sampling[option] = value;
    else {notices.push({
        level: "warning",
        text: `Ignored "${name}" of "${fields.file}": expected a number ${expected}`,
      });}
  }
  return { sampling, notices };
}
