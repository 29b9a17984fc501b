import { PagesiftError } from "../errors.ts";
import { Random, randomSeed, SEED_LIMIT } from "./random.ts";
import { Ranking } from "./ranking.ts";
import type { SamplingOptions } from "../types.ts";

/**
 * Checks every option and fills in the defaults of {@link SamplingOptions}; a missing seed is drawn at random. Throws
 * "usage" errors that name the option, the value found and the expected values.
 */
export function validateSampling(options: SamplingOptions = {}): Required<SamplingOptions> {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repeatPenalty = 1, repeatLastTokens = 64, seed } = options;
  check(Number.isFinite(temperature) && temperature >= 0, "temperature", temperature, "a finite number of at least 0");
  check(isCount(topK), "top-k", topK, "an integer of at least 0, where 0 keeps all tokens");
  check(topP > 0 && topP <= 1, "top-p", topP, "a number above 0 and at most 1");
  check(minP >= 0 && minP <= 1, "min-p", minP, "a number from 0 to 1");
  check(
    Number.isFinite(repeatPenalty) && repeatPenalty > 0,
    "repeat penalty",
    repeatPenalty,
    "a finite number above 0",
  );
  check(isCount(repeatLastTokens), "repeat-last-n", repeatLastTokens, "an integer of at least 0");
  check(
    seed === undefined || (isCount(seed) && seed < SEED_LIMIT),
    "seed",
    seed,
    `an integer from 0 to ${SEED_LIMIT - 1}`,
  );
  return { temperature, topK, topP, minP, repeatPenalty, repeatLastTokens, seed: seed ?? randomSeed() };
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function check(valid: boolean, name: string, value: unknown, expected: string): void {
  if (!valid) throw new PagesiftError("usage", `Invalid ${name} ${value}: expected ${expected}`);
}

/** The largest f32 below 1. */
const BELOW_ONE = 1 - 2 ** -24;
/** Temperatures beyond these choose the best token, or any, and f32 cannot represent them. */
const [LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE] = [1e-30, 1e30];
/** The smallest top-p and min-p above 0 that f32 represents exactly. */
const LEAST = 2 ** -126;

/**
 * Draws tokens from logits. The order is that of llama.cpp: repetition penalty, then at temperature 0 the most likely
 * token (the lowest id on ties), else top-k, top-p, min-p and temperature last. So top-p sums the probabilities before
 * temperature, over the tokens that pass top-k.
 *
 * Without a penalty the same can be done on the device (`ps_sample`), from {@link deviceSettings} and {@link nextDraw}: the
 * same filters in the same order, the same walk (by id without a filter, else by rank) and one random number a token. So it
 * returns the token that {@link sample} returns, unless a draw falls within rounding of the edge between two tokens.
 */
export class Sampler {
  /** The requested options, with defaults and the seed in use. */
  readonly options: Readonly<Required<SamplingOptions>>;
  readonly #random: Random;
  readonly #ranking = new Ranking();
  /** Penalised logits `[V]`; lent out again at every step. */
  #scores = new Float32Array(0);
  /** Running sums of the weights of the remaining tokens `[V]`. */
  #sums = new Float64Array(0);

  /** Throws "usage" errors, see {@link validateSampling}. */
  constructor(options: SamplingOptions = {}) {
    this.options = Object.freeze(validateSampling(options));
    this.#random = new Random(this.options.seed);
  }

  /**
   * A token id for `logits` `[V]`, which are not changed; `history` contains the ids so far, prompt included. Throws a
   * "numeric" error when a logit is NaN or +Infinity, or when all are -Infinity.
   */
  sample(logits: Float32Array, history: readonly number[]): number {
    const scores = this.#penalise(logits, history);
    const best = bestToken(scores);
    const { temperature, topK, topP, minP } = this.options;
    if (temperature === 0) return best;
    const max = scores[best]!;
    if (topK === 0 && topP === 1 && minP === 0) return this.#draw(scores, max, scores.length, (index) => index);
    this.#ranking.reset(scores);
    return this.#draw(scores, max, this.#countKept(scores, max), (rank) => this.#ranking.at(rank));
  }

  /**
   * Temperature, top-p, min-p and top-k for `ps_sample`, where top-k 1 represents temperature 0; or undefined when a
   * repetition penalty needs the logits here.
   */
  get deviceSettings(): readonly number[] | undefined {
    const { temperature, topK, topP, minP, repeatPenalty, repeatLastTokens } = this.options;
    if (repeatPenalty !== 1 && repeatLastTokens !== 0) return undefined;
    if (temperature === 0) return [1, 1, 0, 1];
    return [
      Math.min(Math.max(temperature, LOWEST_TEMPERATURE), HIGHEST_TEMPERATURE),
      topP === 1 ? 1 : Math.min(Math.max(topP, LEAST), BELOW_ONE),
      minP === 0 ? 0 : Math.max(minP, LEAST),
      topK,
    ];
  }

  /** The random number that {@link sample} would draw with, as an f32 below 1; at temperature 0 none is used up. */
  nextDraw(): number {
    return this.options.temperature === 0 ? 0 : Math.min(this.#random.nextFloat(), BELOW_ONE);
  }

  #penalise(logits: Float32Array, history: readonly number[]): Float32Array {
    const { repeatPenalty, repeatLastTokens } = this.options;
    if (repeatPenalty === 1 || repeatLastTokens === 0) return logits;
    if (this.#scores.length !== logits.length) this.#scores = new Float32Array(logits.length);
    this.#scores.set(logits);
    for (const id of new Set(history.slice(-repeatLastTokens))) {
      const logit = logits[id];
      if (logit !== undefined) this.#scores[id] = logit > 0 ? logit / repeatPenalty : logit * repeatPenalty;
    }
    return this.#scores;
  }

  /** How many of the best ranked tokens top-k, top-p and min-p leave; at least one. */
  #countKept(scores: Float32Array, max: number): number {
    const { topK, topP, minP } = this.options;
    const limit = topK === 0 ? this.#ranking.length : Math.min(topK, this.#ranking.length);
    const wantedMass = topP === 1 ? Infinity : topP * this.#massOf(scores, max, limit);
    const lowestScore = max + Math.log(minP);
    let count = 0;
    for (let mass = 0; count < limit && mass < wantedMass; count++) {
      const score = scores[this.#ranking.at(count)]!;
      if (count > 0 && score < lowestScore) break;
      mass += Math.exp(score - max);
    }
    return count;
  }

  /** Sum of `exp(score - max)` over the `limit` best tokens; all need no ranking, so that the tail stays unsorted. */
  #massOf(scores: Float32Array, max: number, limit: number): number {
    let mass = 0;
    if (limit === this.#ranking.length) {
      for (const score of scores) mass += Math.exp(score - max);
    } else {
      for (let rank = 0; rank < limit; rank++) mass += Math.exp(scores[this.#ranking.at(rank)]! - max);
    }
    return mass;
  }

  /** Draws one of `count` tokens, the i-th being `tokenAt(i)`, with weights `exp((score - max) / temperature)`. */
  #draw(scores: Float32Array, max: number, count: number, tokenAt: (index: number) => number): number {
    if (this.#sums.length < count) this.#sums = new Float64Array(scores.length);
    let sum = 0;
    for (let index = 0; index < count; index++) {
      sum += Math.exp((scores[tokenAt(index)]! - max) / this.options.temperature);
      this.#sums[index] = sum;
    }
    const target = this.#random.nextFloat() * sum;
    let low = 0;
    // The first sum above the target: a token of weight 0 repeats the sum before it, so it is never drawn.
    for (let high = count - 1; low < high;) {
      const middle = (low + high) >> 1;
      if (this.#sums[middle]! > target) high = middle;
      else low = middle + 1;
    }
    return tokenAt(low);
  }
}

function bestToken(scores: Float32Array): number {
  let best = -1;
  let max = -Infinity;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id]!;
    if (score > max) [best, max] = [id, score];
    // NaN passes no comparison above, so it needs its own.
    else if (score !== score) throw notANumber(id, score);
  }
  if (max === Infinity) throw notANumber(best, max);
  if (best === -1) {
    throw new PagesiftError("numeric", "No token can be drawn: all logits are -Infinity; check the weights");
  }
  return best;
}

function notANumber(id: number, score: number): PagesiftError {
  const message =
    `The logit of token ${id} is ${score}: the forward pass failed; check the weights or try --device cpu`;
  return new PagesiftError("numeric", message);
}
