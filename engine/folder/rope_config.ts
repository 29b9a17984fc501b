import type { Family } from "./architectures.ts";
import { type ConfigFields, present, type Range } from "./config_fields.ts";
import type { RopeConfig } from "./rope.ts";

const SUPPORTED = "one of default, linear, llama3, yarn";
const THETA: Range = { min: 2, max: 1e15 };
const SCALE: Range = { min: 1e-3, max: 1e6 };
const SHARE: Range = { min: 1e-3, max: 1 };
const TOKENS: Range = { min: 1, max: 1e9 };
const WEIGHT: Range = { min: 0, max: 1e3 };

/**
 * Reads both styles: `rope_parameters`, and the older `rope_theta` beside `rope_scaling`. A value inside the object wins over
 * the same field of the model, except for the context it was trained with, as in the transformers library.
 */
export function parseRope(model: ConfigFields, family: Family): RopeConfig {
  const rope = ropeFields(model, family);
  const source = (name: string) => rope.has(name) ? rope : model;
  const originalMaxContext = originalContext(model, rope);
  const base = {
    theta: source("rope_theta").number("rope_theta", THETA, 10_000),
    partialRotaryFactor: source("partial_rotary_factor").number("partial_rotary_factor", SHARE, 1),
    ...present({ originalMaxContext }),
    positionBeta: family.positionScaling ? rope.number("llama_4_scaling_beta", WEIGHT, 0) : 0,
  };
  return { ...base, ...parseScaling(rope, family) };
}

function ropeFields(model: ConfigFields, family: Family): ConfigFields {
  const name = ["rope_scaling", "rope_parameters"].find((name) => model.has(name));
  // The library would assume yarn with values of one published model here, which is not worth guessing.
  if (name === undefined && family.positionScaling) return model.object("rope_parameters");
  if (name === undefined) return model;
  const rope = model.object(name);
  if (rope.has("full_attention") || rope.has("sliding_attention")) model.refuse(name, "the same for all layers");
  return rope;
}

function originalContext(model: ConfigFields, rope: ConfigFields): number | undefined {
  const name = "original_max_position_embeddings";
  return model.optionalCount(name, TOKENS) ?? rope.optionalCount(name, TOKENS);
}

type Scaling = RopeConfig extends infer C ? C extends RopeConfig ? Omit<C, SharedKey> : never : never;
type SharedKey = "theta" | "partialRotaryFactor" | "originalMaxContext" | "positionBeta";

function parseScaling(rope: ConfigFields, family: Family): Scaling {
  const field = rope.has("rope_type") ? "rope_type" : "type";
  const type = rope.text(field, "default");
  // Phi3 files say "su" or "yarn" for what the library computes as "longrope".
  if (family.modelType === "phi3" && type !== "default") rope.refuse(field, '"default" for this architecture');
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return { type, factor: rope.number("factor", SCALE) };
    case "llama3":
      return parseLlama3(rope);
    case "yarn":
      return parseYarn(rope);
    default:
      return rope.refuse(field, SUPPORTED);
  }
}

function parseLlama3(rope: ConfigFields): Scaling {
  const lowFreqFactor = rope.number("low_freq_factor", SCALE);
  const highFreqFactor = rope.number("high_freq_factor", SCALE);
  if (highFreqFactor <= lowFreqFactor) rope.refuse("high_freq_factor", `above "low_freq_factor" (${lowFreqFactor})`);
  return { type: "llama3", factor: rope.number("factor", SCALE), lowFreqFactor, highFreqFactor };
}

function parseYarn(rope: ConfigFields): Scaling {
  return {
    type: "yarn",
    betaFast: rope.number("beta_fast", SCALE, 32),
    betaSlow: rope.number("beta_slow", SCALE, 1),
    truncate: rope.flag("truncate", true),
    ...present({
      factor: rope.optionalNumber("factor", SCALE),
      attentionFactor: rope.optionalNumber("attention_factor", WEIGHT),
      mscale: rope.optionalNumber("mscale", WEIGHT),
      mscaleAllDim: rope.optionalNumber("mscale_all_dim", WEIGHT),
    }),
  };
}
