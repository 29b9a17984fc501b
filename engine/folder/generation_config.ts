import { join } from "@std/path";
import { ConfigFields } from "./config_fields.ts";
import { readJsonFile } from "./json_file.ts";

/** The fields that the engine reads from `generation_config.json`. Its sampling fields are not read, so they may have any value. */
export interface GenerationConfig {
  /** Tokens that end a generation; empty if the folder names none. */
  readonly eosTokenIds: readonly number[];
}

/**
 * Reads `generation_config.json` of a model folder. Where it is absent or names no end tokens, those of `config.json` count.
 * Throws "model" errors.
 */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig> {
  const own = await readFields(folder, "generation_config.json");
  const source = own.has("eos_token_id") ? own : await readFields(folder, "config.json");
  return Object.freeze({ eosTokenIds: source.tokenIds("eos_token_id") });
}

async function readFields(folder: string, name: string): Promise<ConfigFields> {
  const file = join(folder, name);
  return new ConfigFields(await readJsonFile(file) ?? {}, file);
}
