import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type PagePolicy, resolvePolicy } from "../../../engine/pages/page_policy.ts";
import type { Scorer } from "../../../engine/types.ts";
import { predictStep, selectsFrom, selectsPages, type StepShape } from "../../../engine/pages/selection_cost.ts";

/** How far a predicted ratio of dense to sparse time may be from the measured one. */
const TOLERANCE = 0.12;

interface Measured {
  layers: number;
  /** Default `unique`. */
  scorer?: Scorer;
  shape: StepShape;
  /** Tokens, and dense time / sparse time of a step at that depth, budget 512 and batch 1. */
  ratios: [number, number][];
}

const SMOLLM2 = { numKvHeads: 3, kvBytes: 256, statisticsBytes: 132 };
const QWEN3_8B = { backend: "cuda", weightBytes: 15.1e9, numKvHeads: 8, kvBytes: 512, statisticsBytes: 260 } as const;

/** Of `bench generate`: the CPU in docs/notes/quantized.md, H100 and H200s (docs/performance.md, docs/quality.md). */
const MEASURED: Record<string, Measured> = {
  "SmolLM2 in Q4_1 on two cores": {
    layers: 30,
    shape: { ...SMOLLM2, backend: "cpu", weightBytes: 96.5e6 },
    ratios: [[2048, 9.63 / 7.91], [6000, 15.99 / 8.96]],
  },
  "SmolLM2 in Q4_1 and diag on an H200": {
    layers: 30,
    scorer: "diag",
    shape: { ...SMOLLM2, statisticsBytes: 256, backend: "cuda", weightBytes: 96.5e6 },
    ratios: [[7936, 0.68]],
  },
  "the shape of Llama 3.2 1B in bf16 on an H200": {
    layers: 16,
    shape: { backend: "cuda", weightBytes: 2.47e9, numKvHeads: 8, kvBytes: 256, statisticsBytes: 132 },
    ratios: [[131_072, 2.206 / 1.64]],
  },
  "the shape of Qwen3 8B in bf16 and diag on an H200": {
    layers: 36,
    scorer: "diag",
    shape: { ...QWEN3_8B, statisticsBytes: 512 },
    ratios: [[32_768, 6.714 / 6.436]],
  },
  "SmolLM2 in bf16 on an H100": {
    layers: 30,
    shape: { ...SMOLLM2, backend: "cuda", weightBytes: 269e6 },
    ratios: [[2048, 0.84], [4096, 0.87], [7000, 0.88]],
  },
  "the shape of Qwen3 8B in bf16 on an H100": {
    layers: 36,
    shape: QWEN3_8B,
    ratios: [[2048, 0.95], [4096, 0.98], [8192, 1.02], [16_384, 1.04], [32_768, 1.13]],
  },
};

function policyOf(layers: number, mode: "auto" | "on" | "off" = "auto", scorer: Scorer = "unique"): PagePolicy {
  return resolvePolicy({ mode, scorer, budgetTokens: 512 }, Array<number>(layers).fill(0));
}

for (const [name, { layers, scorer, shape, ratios }] of Object.entries(MEASURED)) {
  for (const [tokens, ratio] of ratios) {
    Deno.test(`predictStep says within ${TOLERANCE} what selecting gained at ${tokens} tokens for ${name}`, () => {
      const policy = policyOf(layers, "auto", scorer);
      const [dense, sparse] = [false, true].map((selects) => predictStep(shape, policy, [tokens], selects));
      assertAlmostEquals(dense! / sparse!, ratio, TOLERANCE);
    });
  }
}

Deno.test("selectsPages of mode auto waits until selecting pays, and mode on does not", () => {
  const { layers, shape } = MEASURED["the shape of Qwen3 8B in bf16 on an H100"]!;
  const selects = (mode: "auto" | "on" | "off", tokens: number): boolean =>
    selectsPages(shape, policyOf(layers, mode), [tokens]);
  assertEquals([512, 4096, 131_072].map((tokens) => selects("auto", tokens)), [false, false, true]);
  assertEquals([512, 520].map((tokens) => selects("on", tokens)), [false, true]);
});

Deno.test("selectsPages of mode auto reads densely where 2,048 of 32,768 tokens took longer on an H200, and selects at 131,072", () => {
  const policy = resolvePolicy({ scorer: "unique", budgetTokens: 2048 }, Array<number>(36).fill(0));
  assertEquals([32_768, 131_072].map((tokens) => selectsPages(QWEN3_8B, policy, [tokens])), [false, true]);
});

Deno.test("selectsPages of mode auto selects earlier for many sequences, whose keys outweigh the weights", () => {
  const { layers, shape } = MEASURED["the shape of Qwen3 8B in bf16 on an H100"]!;
  const policy = policyOf(layers);
  assertEquals(selectsPages(shape, policy, [8192]), false);
  assert(selectsPages(shape, policy, Array<number>(16).fill(8192)));
});

Deno.test("selectsFrom is the first length that selects", () => {
  const { layers, shape } = MEASURED["SmolLM2 in Q4_1 on two cores"]!;
  const policy = policyOf(layers);
  const from = selectsFrom(shape, policy, 8192);
  assertEquals([from - 1, from].map((tokens) => selectsPages(shape, policy, [tokens])), [false, true]);
  assertEquals(selectsFrom(shape, policy, from - 1), Infinity);
});
