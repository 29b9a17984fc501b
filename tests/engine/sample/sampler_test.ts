import { assert, assertAlmostEquals, assertEquals, assertLess, assertNotEquals, assertThrows } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { Random } from "../../../engine/sample/random.ts";
import { Ranking } from "../../../engine/sample/ranking.ts";
import { Sampler, validateSampling } from "../../../engine/sample/sampler.ts";
import type { SamplingOptions } from "../../../engine/types.ts";
import { assertLinear } from "../../support/growth.ts";

const PROBABILITIES = [0.5, 0.25, 0.15, 0.07, 0.03];
const LOGITS = Float32Array.from(PROBABILITIES, (p) => Math.log(p) + 3);

/** Share of each token over `draws` draws from `logits`. */
function shares(options: SamplingOptions, logits = LOGITS, draws = 20_000): number[] {
  const sampler = new Sampler({ temperature: 1, seed: 7, ...options });
  const counts = new Array<number>(logits.length).fill(0);
  for (let draw = 0; draw < draws; draw++) counts[sampler.sample(logits, [])]! += 1 / draws;
  return counts;
}

/** Pearson's statistic of the observed against the wanted shares. */
function chiSquare(observed: number[], wanted: number[], draws: number): number {
  return wanted.reduce((sum, p, i) => sum + draws * (observed[i]! - p) ** 2 / p, 0);
}

function normalised(weights: number[]): number[] {
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

function drawn(options: SamplingOptions): number[] {
  return shares(options).flatMap((share, id) => share > 0 ? [id] : []);
}

/** Logits of a vocabulary of Qwen's size, roughly normal. */
function wideLogits(seed: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: 151_936 }, () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += random.nextFloat();
    return 3 * sum;
  });
}

function kindOf(fn: () => unknown): string {
  return assertThrows(fn, PagesiftError).kind;
}

Deno.test("Sampler takes the most likely token by default", () => {
  assertEquals(new Sampler().sample(Float32Array.of(0, 2, 1), []), 1);
});

Deno.test("Sampler takes the lowest id on ties at temperature 0", () => {
  assertEquals(new Sampler().sample(Float32Array.of(-1, 5, 5, 5), []), 1);
});

Deno.test("Sampler draws tokens as often as softmax says", () => {
  // 18.5 is the 0.999 quantile of chi-square with 4 degrees of freedom.
  assertLess(chiSquare(shares({}), PROBABILITIES, 20_000), 18.5);
});

Deno.test("Sampler divides logits by the temperature", () => {
  const wanted = normalised(PROBABILITIES.map((p) => p ** (1 / 0.5)));
  assertLess(chiSquare(shares({ temperature: 0.5 }), wanted, 20_000), 18.5);
});

Deno.test("Sampler applies top-k", () => {
  const observed = shares({ topK: 2 });
  assertAlmostEquals(observed[0]!, 2 / 3, 0.015);
  assertAlmostEquals(observed[0]! + observed[1]!, 1, 1e-9);
});

Deno.test("Sampler keeps every token when top-k exceeds the vocabulary", () => {
  assertEquals(drawn({ topK: 1000 }), [0, 1, 2, 3, 4]);
});

Deno.test("Sampler keeps the smallest set that reaches top-p", () => {
  assertEquals(drawn({ topP: 0.6 }), [0, 1]);
});

Deno.test("Sampler keeps one token at the least top-p", () => {
  assertEquals(drawn({ topP: Number.MIN_VALUE }), [0]);
});

Deno.test("Sampler sums top-p over what top-k kept", () => {
  // After top-k the first token has 0.667 of the mass, before it only 0.5.
  assertEquals(drawn({ topK: 2, topP: 0.6 }), [0]);
});

Deno.test("Sampler applies top-p before temperature", () => {
  // At temperature 4 the first two tokens would hold only 0.52 of the mass.
  assertEquals(drawn({ topP: 0.7, temperature: 4 }), [0, 1]);
});

Deno.test("Sampler applies min-p relative to the most likely token", () => {
  assertEquals(drawn({ minP: 0.28 }), [0, 1, 2]);
});

Deno.test("Sampler keeps the most likely token at min-p 1", () => {
  assertEquals(drawn({ minP: 1 }), [0]);
});

Deno.test("Sampler never draws a token whose logit is -Infinity", () => {
  const observed = shares({}, Float32Array.of(-Infinity, 0, -Infinity, 0, -Infinity), 2000);
  assertEquals([observed[0], observed[2], observed[4]], [0, 0, 0]);
});

Deno.test("Sampler divides positive and multiplies negative logits of seen tokens", () => {
  const sampler = new Sampler({ repeatPenalty: 2 });
  assertEquals(sampler.sample(Float32Array.of(4, 3, -9), [0]), 1);
  assertEquals(sampler.sample(Float32Array.of(-2, -3, -9), [0]), 1);
});

Deno.test("Sampler penalises a token once however often it was seen", () => {
  assertEquals(new Sampler({ repeatPenalty: 1.5 }).sample(Float32Array.of(4, 2), [0, 0, 0, 0]), 0);
});

Deno.test("Sampler looks at the latest tokens only", () => {
  const sampler = new Sampler({ repeatPenalty: 2, repeatLastTokens: 2 });
  assertEquals(sampler.sample(Float32Array.of(4, 3, 1), [0, 2, 2]), 0);
});

Deno.test("Sampler leaves the logits untouched", () => {
  const logits = Float32Array.of(4, 3);
  new Sampler({ repeatPenalty: 2, temperature: 1, topK: 1 }).sample(logits, [0]);
  assertEquals([...logits], [4, 3]);
});

Deno.test("Sampler repeats its draws for the same seed", () => {
  const run = (seed: number): number[] => {
    const sampler = new Sampler({ temperature: 2, topP: 0.99, seed });
    return Array.from({ length: 50 }, () => sampler.sample(LOGITS, []));
  };
  assertEquals(run(4_294_967_295), run(4_294_967_295));
  assertNotEquals(run(1), run(2));
});

Deno.test("Sampler draws the same from reused buffers as from new ones", () => {
  const big = wideLogits(1);
  const reused = new Sampler({ temperature: 1, topK: 3, seed: 5 });
  const fresh = new Sampler({ temperature: 1, topK: 3, seed: 5 });
  reused.sample(big, []), fresh.sample(LOGITS, []);
  assertEquals(reused.sample(LOGITS, []), fresh.sample(LOGITS, []));
});

Deno.test("Sampler refuses NaN and infinite logits", () => {
  for (const bad of [NaN, Infinity]) {
    assertEquals(kindOf(() => new Sampler().sample(Float32Array.of(0, bad, 1), [])), "numeric");
  }
});

Deno.test("Sampler refuses logits that are all -Infinity", () => {
  for (const temperature of [0, 1]) {
    const sampler = new Sampler({ temperature });
    assertEquals(kindOf(() => sampler.sample(new Float32Array(3).fill(-Infinity), [])), "numeric");
  }
});

Deno.test("Sampler takes no longer per logit of a large vocabulary than of a small one", () => {
  const logits = wideLogits(2);
  const sampler = new Sampler({ temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1.1, seed: 3 });
  assertLinear((size) => sampler.sample(logits.subarray(0, size), [1, 2, 3]), logits.length / 4);
});

Deno.test("validateSampling fills in the defaults", () => {
  const { seed, ...rest } = validateSampling({});
  assertEquals(rest, { temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, repeatLastTokens: 64 });
  assert(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32);
});

for (
  const options of [
    ...[-1, NaN, Infinity].map((temperature) => ({ temperature })),
    ...[0, -0.1, 1.01, NaN].map((topP) => ({ topP })),
    ...[-0.1, 1.1, NaN].map((minP) => ({ minP })),
    ...[-1, 1.5, NaN].map((topK) => ({ topK })),
    ...[0, -1, NaN, Infinity].map((repeatPenalty) => ({ repeatPenalty })),
    ...[-1, 0.5].map((repeatLastTokens) => ({ repeatLastTokens })),
    ...[-1, 0.5, 2 ** 32, 2 ** 64].map((seed) => ({ seed })),
  ]
) {
  const [[name, value]] = Object.entries(options) as [[string, number]];
  Deno.test(`validateSampling refuses ${name} ${value}`, () => {
    assertEquals(kindOf(() => validateSampling(options)), "usage");
  });
}

Deno.test("Ranking orders by falling score and then by rising index", () => {
  const scores = Float32Array.of(1, 3, -Infinity, 3, 0, 3, 1);
  const ranking = new Ranking();
  ranking.reset(scores);
  assertEquals(Array.from({ length: ranking.length }, (_, rank) => ranking.at(rank)), [1, 3, 5, 0, 6, 4]);
});

Deno.test("Ranking agrees with a full sort", () => {
  const scores = wideLogits(4).slice(0, 5000);
  const ranking = new Ranking();
  ranking.reset(scores);
  const wanted = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  assertEquals(wanted.map((_, rank) => ranking.at(rank)), wanted);
});

Deno.test("Random spreads its draws evenly", () => {
  const random = new Random(0);
  const counts = new Array<number>(16).fill(0);
  for (let i = 0; i < 16_000; i++) counts[Math.floor(random.nextFloat() * 16)]! += 1 / 16_000;
  // 37.7 is the 0.999 quantile of chi-square with 15 degrees of freedom.
  assertLess(chiSquare(counts, new Array(16).fill(1 / 16), 16_000), 37.7);
});
