import { assert, assertEquals } from "@std/assert";
import type { PlannedTensor, WeightPlan } from "../../engine/folder/weight_plan.ts";
import { weightBytes, Weights } from "../../engine/weights.ts";
import { deviceTest } from "../support/device.ts";
import { loadedOf, loadFixture } from "../support/fixture_model.ts";

/** The second tensor begins behind the gap that aligns it. */
const PLAN: WeightPlan = {
  dtype: "f32",
  notices: [],
  tensors: new Map(
    (["first", "second"] as const).map((name): [string, PlannedTensor] => [
      name,
      { name, shape: [3, 2], dtype: "f32", parts: [] },
    ]),
  ),
};

deviceTest("Weights.fill gives every planned tensor what the caller writes, and no other place", (device) => {
  const weights = Weights.fill(device, PLAN, ({ name }, target) => {
    if (name === "second") target.write(new Float32Array([1, 2, 3, 4, 5, 6]));
  });
  assertEquals([...weights.get("first").readFloats()], [0, 0, 0, 0, 0, 0]);
  assertEquals([...weights.get("second").readFloats()], [1, 2, 3, 4, 5, 6]);
});

deviceTest("Weights.fill takes the bytes that the plan says, in one buffer", (device) => {
  const weights = Weights.fill(device, PLAN, () => {});
  const [first, second] = [weights.get("first"), weights.get("second")];
  assertEquals([weights.bytes, first.buffer.bytes, second.offsetBytes], [weightBytes(PLAN), 512, 256]);
  assertEquals(first.buffer, second.buffer);
});

Deno.test("Weights.stepBytes counts of the experts what a token takes", async () => {
  await using engine = await loadFixture("qwen3-moe-f32");
  const { weights, config } = loadedOf(engine).model;
  const all = weights.stepBytes({});
  assert(weights.stepBytes(config) < all);
  assert(all <= weights.bytes);
});
