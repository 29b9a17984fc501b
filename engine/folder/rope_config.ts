import type { Family } from "./architectures.ts";
import { type ConfigFields, present, type Range } from "./config_fields.ts";
import { type LongRopeScaling, type RopeConfig, rotaryDimOf } from "./rope.ts";

const SUPPORTED = "one of default, linear, llama3, yarn, longrope";
const THETA: Range = { min: 2, max: 1e15 };
const SCALE: Range = { min: 1e-3, max: 1e6 };
const SHARE: Range = { min: 1e-3, max: 1 };
const TOKENS: Range = { min: 1, max: 1e9 };
const WEIGHT: Range = { min: 0, max: 1e3 };
const [GLOBAL, LOCAL] = ["full_attention", "sliding_attention"];
const LOCAL_THETA = 10_000;

/**
 * Reads both styles: `rope_parameters`, and the older `rope_theta` beside `rope_scaling`. A value inside the object wins over
 * the same field of the model, except for the context it was trained with, as in the transformers library.
 */
export function parseRope(model: ConfigFields, family: Family, headDim: number): RopeConfig {
  const rope = ropeFields(model, family);
  const source = (name: string) => rope.has(name) ? rope : model;
  const originalMaxContext = originalContext(model, rope);
  const base = {
    theta: source("rope_theta").number("rope_theta", THETA, family.defaultTheta),
    partialRotaryFactor: source("partial_rotary_factor").number("partial_rotary_factor", SHARE, 1),
    ...present({ originalMaxContext }),
    positionBeta: family.positionScaling ? rope.number("llama_4_scaling_beta", WEIGHT, 0) : 0,
  };
  const scaling = parseScaling(rope, family);
  if (scaling.type === "longrope") {
    checkFactors(rope, scaling, rotaryDimOf(base, headDim) / 2);
    // The library assumes as much where Phi-3 does not say.
    if (family.modelType === "phi3") return { originalMaxContext: 4096, ...base, ...scaling };
  }
  return { ...base, ...scaling };
}

/** The rotation of the layers with a sliding window in a family where it has a base of its own. */
export function parseLocalRope(model: ConfigFields, { partialRotaryFactor }: RopeConfig): RopeConfig {
  const nested = nestedFields(model);
  if (!nested?.has(LOCAL)) {
    const theta = model.number("rope_local_base_freq", THETA, LOCAL_THETA);
    return { type: "default", theta, partialRotaryFactor, positionBeta: 0 };
  }
  const rope = nested.object(LOCAL);
  const type = rope.text("rope_type", "default");
  const base = { theta: rope.number("rope_theta", THETA, LOCAL_THETA), partialRotaryFactor, positionBeta: 0 };
  if (type === "default") return { ...base, type };
  return type === "linear" ? { ...base, ...parseLinear(rope) } : rope.refuse("rope_type", "default or linear");
}

/** `rope_parameters` where it has an object for each type of layer. */
function nestedFields(model: ConfigFields): ConfigFields | undefined {
  if (!model.has("rope_parameters")) return undefined;
  const rope = model.object("rope_parameters");
  return rope.has(GLOBAL) || rope.has(LOCAL) ? rope : undefined;
}

function ropeFields(model: ConfigFields, family: Family): ConfigFields {
  const name = ["rope_scaling", "rope_parameters"].find((name) => model.has(name));
  // The library would assume yarn with values of one published model here, which is not worth guessing.
  if (name === undefined && family.positionScaling) return model.object("rope_parameters");
  if (name === undefined) return model;
  const rope = model.object(name);
  if (!rope.has(GLOBAL) && !rope.has(LOCAL)) return rope;
  return family.rotations === "by window" ? rope.object(GLOBAL) : model.refuse(name, "the same for all layers");
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
  if (family.modelType === "phi3" && type !== "default") {
    if (!["longrope", "su", "yarn"].includes(type)) rope.refuse(field, "default or longrope for this architecture");
    return parseLongRope(rope);
  }
  switch (type) {
    case "default":
      return { type };
    case "linear":
      return parseLinear(rope);
    case "llama3":
      return parseLlama3(rope);
    case "yarn":
      return parseYarn(rope);
    case "longrope":
      return parseLongRope(rope);
    default:
      return rope.refuse(field, SUPPORTED);
  }
}

function parseLinear(rope: ConfigFields): { type: "linear"; factor: number } {
  return { type: "linear", factor: rope.number("factor", SCALE) };
}

function parseLongRope(rope: ConfigFields): LongRopeScaling {
  return {
    type: "longrope",
    shortFactors: rope.list("short_factor", "a list of numbers", isFactor),
    longFactors: rope.list("long_factor", "a list of numbers", isFactor),
    ...present({
      factor: rope.optionalNumber("factor", SCALE),
      attentionFactor: rope.optionalNumber("attention_factor", WEIGHT),
    }),
  };
}

function isFactor(item: unknown): item is number {
  return typeof item === "number" && item >= SCALE.min && item <= SCALE.max;
}

function checkFactors(rope: ConfigFields, { shortFactors, longFactors }: LongRopeScaling, pairs: number): void {
  const expected = `a list of ${pairs} numbers, one for each pair of rotated dimensions`;
  if (shortFactors.length !== pairs) rope.refuse("short_factor", expected);
  if (longFactors.length !== pairs) rope.refuse("long_factor", expected);
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
