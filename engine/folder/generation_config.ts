import { join } from "@std/path";
import { ConfigFields, TOKEN_IDS } from "./config_fields.ts";
import { readJsonFile } from "./json_file.ts";
import { present } from "./rope_config.ts";
import type { SamplingOptions } from "../types.ts";

type SamplingDefaults = Pick<SamplingOptions, "temperature" | "topK" | "topP" | "minP" | "repeatPenalty">;

/** What a model folder says about generation. Sampling fields are there only where its authors chose to sample. */
export interface GenerationConfig extends Readonly<SamplingDefaults> {
  /** Tokens that end a generation; empty where the folder names none. */
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId?: number;
}

/**
 * Reads `generation_config.json` of a model folder; token ids it does not name, and all of them where it is absent, come from
 * `config.json`. Throws "model" errors.
 */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig> {
  const own = await readFields(folder, "generation_config.json");
  const model = await readFields(folder, "config.json");
  const source = (name: string) => own.has(name) ? own : model;
  return Object.freeze({
    eosTokenIds: source("eos_token_id").tokenIds("eos_token_id"),
    ...present({ bosTokenId: source("bos_token_id").optionalCount("bos_token_id", TOKEN_IDS) }),
    ...own.flag("do_sample", false) ? parseSampling(own) : {},
  });
}

async function readFields(folder: string, name: string): Promise<ConfigFields> {
  const file = join(folder, name);
  return new ConfigFields(await readJsonFile(file) ?? {}, file);
}

function parseSampling(fields: ConfigFields): SamplingDefaults {
  return present({
    temperature: fields.number("temperature", { min: 0, max: 100 }, 1),
    topK: fields.optionalCount("top_k", { min: 0, max: 10_000_000 }),
    topP: fields.optionalNumber("top_p", { min: 1e-6, max: 1 }),
    minP: fields.optionalNumber("min_p", { min: 0, max: 1 }),
    repeatPenalty: fields.optionalNumber("repetition_penalty", { min: 1e-3, max: 100 }),
  });
}
