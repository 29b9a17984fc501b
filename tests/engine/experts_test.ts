/** The mixture of experts against the plain operations, and how its tokens are sorted. */
import { assertEquals } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { Experts, groupByExpert } from "../../engine/experts.ts";
import { Random } from "../../engine/sample/random.ts";
import { matmul } from "../reference/matmul.ts";
import { routeExperts } from "../reference/route_experts.ts";
import { siluMul } from "../reference/silu_mul.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { loadedOf, loadFixture } from "../support/fixture_model.ts";

const MODEL = "qwen3-moe-f32";
const LAYER = "layers.1";

Deno.test("groupByExpert gives each expert its tokens and their shares", () => {
  const groups = groupByExpert(Int32Array.of(3, 0, 0, 2, 3, 2), Float32Array.of(0.5, 0.25, 1, 2, 4, 8), 2);
  assertEquals([...groups].sort(([a], [b]) => a - b), [
    [0, { rows: [0, 1], shares: [0.25, 1] }],
    [2, { rows: [1, 2], shares: [2, 8] }],
    [3, { rows: [0, 2], shares: [0.5, 4] }],
  ]);
});

Deno.test("groupByExpert leaves out experts that no token chose", () => {
  assertEquals([...groupByExpert(Int32Array.of(5, 5), Float32Array.of(1, 1), 1).keys()], [5]);
});

interface Numbers {
  hidden: Float32Array<ArrayBuffer>;
  normed: Float32Array<ArrayBuffer>;
}

/** What one expert answers to one token. */
function answerOf(engine: Engine, expert: number, token: Float32Array, width: number): Float64Array {
  const weight = (name: string): Float32Array =>
    loadedOf(engine).model.weights.get(`${LAYER}.experts.${expert}.${name}.weight`).readFloats();
  const gateUp = matmul(token, weight("gate_up"), undefined, token.length);
  return matmul(siluMul(gateUp.subarray(0, width), gateUp.subarray(width)), weight("down"), undefined, width);
}

/** Token by token, what the hidden states become. */
function wantedHidden(engine: Engine, { hidden, normed }: Numbers, normalize: boolean): Float64Array {
  const { hiddenSize, moe } = engine.config;
  if (!moe) throw new Error("The fixture has no experts");
  const { numExperts, numExpertsPerToken, intermediateSize } = moe;
  const router = loadedOf(engine).model.weights.get(`${LAYER}.router.weight`).readFloats();
  const logits = matmul(normed, router, undefined, hiddenSize);
  const routing = routeExperts(logits, numExperts, numExpertsPerToken, normalize);
  const out = Float64Array.from(hidden);
  routing.experts.forEach((expert, index) => {
    const start = Math.floor(index / numExpertsPerToken) * hiddenSize;
    const answer = answerOf(engine, expert, normed.subarray(start, start + hiddenSize), intermediateSize);
    answer.forEach((value, i) => out[start + i]! += (routing.weights[index] ?? 0) * value);
  });
  return out;
}

async function assertLikeReference(tokens: number, normTopkProb: boolean): Promise<void> {
  await using engine = await loadFixture(MODEL);
  const { config, model, device } = loadedOf(engine);
  if (!config.moe) throw new Error("The fixture has no experts");
  const random = new Random(tokens);
  const size = tokens * config.hiddenSize;
  const numbers = { hidden: normals(random, size), normed: normals(random, size) };
  const experts = new Experts(device, model.weights, config, { ...config.moe, normTopkProb }, tokens);
  const views = model.activations.views(tokens);
  views.hidden.write(numbers.hidden);
  views.normed.write(numbers.normed);
  experts.addTo(LAYER, views);
  const wanted = wantedHidden(engine, numbers, normTopkProb);
  assertNumbersClose(views.hidden.readFloats(), wanted, [tokens, config.hiddenSize], { relative: 1e-4 });
}

for (const tokens of [1, 2, 33]) {
  Deno.test(`Experts.addTo adds what the chosen experts answer to ${tokens} tokens`, async () => {
    await assertLikeReference(tokens, true);
  });
}

Deno.test("Experts.addTo keeps the shares of all experts' softmax where they are not normalized", async () => {
  await assertLikeReference(9, false);
});
