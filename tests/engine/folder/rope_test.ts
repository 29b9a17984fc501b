import { assertAlmostEquals, assertEquals } from "@std/assert";
import { type RopeConfig, ropeFrequencies } from "../../../engine/folder/rope.ts";

const BASE = { theta: 10_000, partialRotaryFactor: 1, positionBeta: 0 } as const;
const YARN = { ...BASE, type: "yarn", betaFast: 32, betaSlow: 1, truncate: true } as const;

interface Case {
  name: string;
  rope: RopeConfig;
  headDim: number;
  /** Computed by the functions of transformers 5.23 in float32. */
  invFreq: number[];
  attentionScaling: number;
}

const CASES: Case[] = [{
  name: "default",
  rope: { ...BASE, type: "default" },
  headDim: 16,
  invFreq: [1, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005, 0.000316227786],
  attentionScaling: 1,
}, {
  name: "default on a part of the head",
  rope: { ...BASE, type: "default", theta: 500_000, partialRotaryFactor: 0.75 },
  headDim: 32,
  // deno-fmt-ignore
  invFreq: [1, 0.335031629, 0.112246193, 0.0376060307, 0.0125992084, 0.00422113482, 0.00141421345, 0.000473806402,
    0.000158740062, 5.31829573e-05, 1.78179798e-05, 5.96958353e-06],
  attentionScaling: 1,
}, {
  name: "linear",
  rope: { ...BASE, type: "linear", factor: 2 },
  headDim: 16,
  invFreq: [0.5, 0.158113882, 0.0500000007, 0.0158113893, 0.00499999989, 0.00158113893, 0.000500000024, 0.000158113893],
  attentionScaling: 1,
}, {
  name: "llama3",
  rope: {
    ...BASE,
    type: "llama3",
    theta: 500_000,
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxContext: 64,
  },
  headDim: 32,
  // deno-fmt-ignore
  invFreq: [1, 0.440366626, 0.079403013, 0.0106746377, 0.00470075384, 0.00207005511, 0.000911583134, 0.000401430763,
    0.000176776681, 7.78465546e-05, 3.42810235e-05, 1.50962178e-05, 6.64786967e-06, 2.92749974e-06, 1.28917316e-06,
    5.6770881e-07],
  attentionScaling: 1,
}, {
  name: "yarn with defaults",
  rope: { ...YARN, theta: 1e6, factor: 4, originalMaxContext: 64 },
  headDim: 16,
  // deno-fmt-ignore
  invFreq: [1, 0.111142464, 0.00790569466, 0.00140585331, 0.000250000012, 4.44569851e-05, 7.90569356e-06,
    1.40585337e-06],
  attentionScaling: 1.138629436111989,
}, {
  name: "yarn with equal mscale values",
  rope: { ...YARN, theta: 1e6, factor: 16, mscale: 1, mscaleAllDim: 1, originalMaxContext: 16_384 },
  headDim: 32,
  // deno-fmt-ignore
  invFreq: [1, 0.421696514, 0.177827939, 0.0749894157, 0.0316227786, 0.0133352149, 0.00456902338, 0.00148210872,
    0.000437499984, 0.000105424115, 1.11142463e-05, 4.68683902e-06, 1.97642339e-06, 8.33450883e-07, 3.51463342e-07,
    1.48210859e-07],
  attentionScaling: 1,
}, {
  name: "yarn with a factor of its own, unequal mscale values and no rounding",
  rope: { ...YARN, mscale: 1, mscaleAllDim: 0.5, truncate: false, originalMaxContext: 512 },
  headDim: 16,
  // deno-fmt-ignore
  invFreq: [1, 0.298936278, 0.0654650778, 0.0115101226, 0.00124999997, 0.000395284733, 0.000125000006, 3.95284733e-05],
  attentionScaling: 1.094179988101349,
}, {
  name: "yarn with a given attention factor and narrow betas",
  rope: { ...YARN, factor: 8, attentionFactor: 1.25, betaFast: 8, betaSlow: 4, originalMaxContext: 512 },
  headDim: 16,
  invFreq: [1, 0.316227764, 0.100000001, 0.00395284733, 0.00124999997, 0.000395284733, 0.000125000006, 3.95284733e-05],
  attentionScaling: 1.25,
}];

for (const { name, rope, headDim, invFreq, attentionScaling } of CASES) {
  Deno.test(`ropeFrequencies equals transformers for ${name}`, () => {
    const found = ropeFrequencies(rope, headDim, 4096);
    assertEquals(found.invFreq.length, invFreq.length);
    found.invFreq.forEach((value, i) => assertAlmostEquals(value / invFreq[i]!, 1, 3e-7));
    assertAlmostEquals(found.attentionScaling, attentionScaling, 1e-15);
  });
}

const LONG: RopeConfig = {
  ...BASE,
  type: "longrope",
  originalMaxContext: 64,
  shortFactors: [1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35],
  longFactors: [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5],
};
// Computed by the functions of transformers 5.24 in float32.
// deno-fmt-ignore
const SHORT_FREQUENCIES = [1, 0.301169306, 0.0909090936, 0.0274980683, 0.00833333284, 0.00252982229, 0.00076923077, 0.000234242791];
// deno-fmt-ignore
const LONG_FREQUENCIES = [1, 0.210818499, 0.0500000007, 0.0126491114, 0.00333333341, 0.000903507927, 0.000250000012, 7.02728357e-05];

for (const [contextInForce, wanted] of [[64, SHORT_FREQUENCIES], [65, LONG_FREQUENCIES]] as const) {
  Deno.test(`ropeFrequencies equals transformers for longrope in a context of ${contextInForce} tokens`, () => {
    const found = ropeFrequencies(LONG, 16, 4096, contextInForce);
    found.invFreq.forEach((value, i) => assertAlmostEquals(value / wanted[i]!, 1, 3e-7));
    assertAlmostEquals(found.attentionScaling, 1.4142135623730951, 1e-15);
  });
}

Deno.test("ropeFrequencies takes the attention factor that longrope gives", () => {
  assertEquals(ropeFrequencies({ ...LONG, attentionFactor: 1.5 }, 16, 4096).attentionScaling, 1.5);
});

Deno.test("ropeFrequencies rotates the leading share of the head", () => {
  const found = ropeFrequencies({ ...BASE, type: "default", partialRotaryFactor: 0.75 }, 128, 4096);
  assertEquals([found.rotaryDim, found.invFreq.length], [96, 48]);
});

Deno.test("ropeFrequencies takes the whole context where the original one is not named", () => {
  const named: RopeConfig = { ...YARN, factor: 4, originalMaxContext: 4096 };
  const { originalMaxContext: _, ...unnamed } = named;
  assertEquals(ropeFrequencies(unnamed, 32, 4096), ropeFrequencies(named, 32, 4096));
});

Deno.test("ropeFrequencies hands on what queries grow with", () => {
  const found = ropeFrequencies(
    { ...BASE, type: "default", positionBeta: 0.1, originalMaxContext: 16_384 },
    32,
    65_536,
  );
  assertEquals([found.positionBeta, found.positionOrigin], [0.1, 16_384]);
});
