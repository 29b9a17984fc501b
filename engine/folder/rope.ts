/** Rotary position embedding, as `config.json` describes it. */
export type RopeConfig = RopeBase & RopeScaling;

interface RopeBase {
  theta: number;
  /** Share of a head that is rotated, in (0, 1]; the rest passes unchanged. */
  partialRotaryFactor: number;
  /** Tokens of the context before it was extended; the model's `maxContext` where absent. */
  originalMaxContext?: number;
  /** Weight of the growth of queries with their position (Ministral3); 0 is off. */
  positionBeta: number;
}

type YarnConfig = RopeBase & YarnScaling;

type RopeScaling =
  | { type: "default" }
  | { type: "linear"; factor: number }
  | Llama3Scaling
  | YarnScaling
  | LongRopeScaling
  | DividedScaling;

/** Factors for contexts of up to `originalMaxContext`, and for longer ones. */
export interface LongRopeScaling {
  type: "longrope";
  /** What frequencies are divided by, `[rotaryDim / 2]`. */
  shortFactors: readonly number[];
  longFactors: readonly number[];
  /** `maxContext / originalMaxContext` where absent. */
  factor?: number;
  attentionFactor?: number;
}

/** What GGUF files have in place of llama3's constants. */
interface DividedScaling {
  type: "divided";
  /** What the plain frequencies are divided by, `[rotaryDim / 2]`. */
  divisors: readonly number[];
}

interface Llama3Scaling {
  type: "llama3";
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
}

interface YarnScaling {
  type: "yarn";
  /** `maxContext / originalMaxContext` where absent. */
  factor?: number;
  attentionFactor?: number;
  betaFast: number;
  betaSlow: number;
  mscale?: number;
  mscaleAllDim?: number;
  /** Whether the bounds of the ramp are rounded to whole dimensions. */
  truncate: boolean;
}

/** What the rotation of queries and keys needs. */
export interface RopeFrequencies {
  /** Radians per position, `[rotaryDim / 2]`; element i turns dimensions i and i + rotaryDim / 2. */
  invFreq: Float32Array;
  /** Leading dimensions of a head that are rotated. */
  rotaryDim: number;
  /** Factor of both cosine and sine. */
  attentionScaling: number;
  /** Queries at position p are scaled by `1 + positionBeta * ln(1 + floor(p / positionOrigin))`. */
  positionBeta: number;
  /** Tokens. */
  positionOrigin: number;
}

// Each step is rounded to float32 because the models were run by a library that computes these in float32.
const round = Math.fround;

/**
 * Rotation frequencies of a head of `headDim` dimensions, equal to those of the transformers library.
 *
 * @param maxContext tokens that the model was made for
 * @param contextInForce tokens that a sequence may reach, for {@link usesLongFactors}
 */
export function ropeFrequencies(
  rope: RopeConfig,
  headDim: number,
  maxContext: number,
  contextInForce = maxContext,
): RopeFrequencies {
  const rotaryDim = rotaryDimOf(rope, headDim);
  const powers = thetaPowers(rope.theta, rotaryDim);
  const originalMaxContext = rope.originalMaxContext ?? maxContext;
  return {
    invFreq: scaledFrequencies(rope, powers, { original: originalMaxContext, maxContext, contextInForce }),
    rotaryDim,
    attentionScaling: attentionScaling(rope, maxContext),
    positionBeta: rope.positionBeta,
    positionOrigin: originalMaxContext,
  };
}

/**
 * Whether LongRoPE rotates by its long factors. The transformers library asks this of every forward pass, by the length so far, and
 * computes the cache again when a generation passes the original context. Here it is settled by the context in force, as in llama.cpp,
 * so that no cache ever mixes the two: a context of at most the original one takes the short factors.
 */
export function usesLongFactors({ originalMaxContext }: RopeBase, maxContext: number, contextInForce: number): boolean {
  return contextInForce > (originalMaxContext ?? maxContext);
}

/** Leading dimensions of a head that are rotated. */
export function rotaryDimOf(rope: { partialRotaryFactor: number }, headDim: number): number {
  return Math.trunc(headDim * rope.partialRotaryFactor);
}

/** `theta ^ (2i / rotaryDim)`, `[rotaryDim / 2]`. */
function thetaPowers(theta: number, rotaryDim: number): Float32Array {
  return Float32Array.from({ length: rotaryDim / 2 }, (_, i) => round(theta) ** round(2 * i / rotaryDim));
}

interface Contexts {
  original: number;
  maxContext: number;
  contextInForce: number;
}

function scaledFrequencies(
  rope: RopeConfig,
  powers: Float32Array,
  { original, maxContext, contextInForce }: Contexts,
): Float32Array {
  const invFreq = powers.map((power) => 1 / power);
  switch (rope.type) {
    case "default":
      return invFreq;
    case "linear":
      return invFreq.map((frequency) => frequency / rope.factor);
    case "divided":
      return invFreq.map((frequency, i) => frequency / (rope.divisors[i] ?? NaN));
    case "llama3":
      return invFreq.map((frequency) => llama3Frequency(rope, frequency, original));
    case "yarn":
      return yarnFrequencies(rope, powers, original, extension(rope, maxContext));
    case "longrope": {
      const factors = usesLongFactors(rope, maxContext, contextInForce) ? rope.longFactors : rope.shortFactors;
      return powers.map((power, i) => 1 / round(round(factors[i] ?? NaN) * power));
    }
  }
}

function attentionScaling(rope: RopeConfig, maxContext: number): number {
  if (rope.type === "yarn") return yarnAttentionScaling(rope, extension(rope, maxContext));
  if (rope.type !== "longrope") return 1;
  if (rope.attentionFactor !== undefined) return rope.attentionFactor;
  const factor = extension(rope, maxContext);
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(rope.originalMaxContext ?? maxContext));
}

/** Long waves are slowed by `factor`, short ones stay, those between are blended. */
function llama3Frequency(rope: Llama3Scaling, frequency: number, original: number): number {
  const wavelength = round(2 * Math.PI / frequency);
  if (wavelength > original / rope.lowFreqFactor) return frequency / rope.factor;
  if (wavelength < original / rope.highFreqFactor) return frequency;
  const range = rope.highFreqFactor - rope.lowFreqFactor;
  const smooth = round(round(round(original / wavelength) - rope.lowFreqFactor) / range);
  return round(round(round(1 - smooth) * frequency) / rope.factor) + round(smooth * frequency);
}

function yarnFrequencies(rope: YarnConfig, powers: Float32Array, original: number, factor: number): Float32Array {
  const { low, high } = yarnRamp(rope, powers.length * 2, original);
  return powers.map((power, i) => {
    const ramp = round(Math.min(1, Math.max(0, round(round(i - low) / round(high - low)))));
    const keep = round(1 - ramp);
    const interpolated = round(1 / round(factor * power));
    return round(interpolated * round(1 - keep)) + round(round(1 / power) * keep);
  });
}

/** Dimensions between which yarn passes from the plain to the slowed frequency. */
function yarnRamp(rope: YarnConfig, rotaryDim: number, original: number): { low: number; high: number } {
  const dimension = (rotations: number) =>
    rotaryDim * Math.log(original / (rotations * 2 * Math.PI)) / (2 * Math.log(rope.theta));
  const [first, last] = [dimension(rope.betaFast), dimension(rope.betaSlow)];
  const low = Math.max(rope.truncate ? Math.floor(first) : first, 0);
  const high = Math.min(rope.truncate ? Math.ceil(last) : last, rotaryDim - 1);
  return { low, high: low === high ? high + 0.001 : high };
}

/** How many times longer the context became. */
function extension(rope: RopeBase & { factor?: number }, maxContext: number): number {
  return rope.factor ?? maxContext / (rope.originalMaxContext ?? maxContext);
}

function yarnAttentionScaling(rope: YarnScaling, factor: number): number {
  if (rope.attentionFactor !== undefined) return rope.attentionFactor;
  if (!rope.mscale || !rope.mscaleAllDim) return yarnMscale(factor, 1);
  return yarnMscale(factor, rope.mscale) / yarnMscale(factor, rope.mscaleAllDim);
}

function yarnMscale(factor: number, weight: number): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;
}
