import { assertEquals, assertThrows } from "@std/assert";
import { planLayers } from "../../bench/attention_memory.ts";
import { type AttentionLists, planAttention } from "../../bench/attention_plan.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { deviceTest } from "../support/device.ts";
import { tinyLists } from "./tiny.ts";

Deno.test("planAttention() makes a case of every combination except scorers and budgets", () => {
  const lists = { ...tinyLists, context: "1k,2k", batch: "1,3", pageSize: "8,16", budget: "64,128" };
  assertEquals(planAttention(lists).cases.length, 8);
});

Deno.test("planAttention() measures all scorers and budgets on one cache", () => {
  const [one] = planAttention({ ...tinyLists, budget: "64,128" }).cases;
  assertEquals([one?.scorers, one?.budgets], [["unique", "quest"], [64, 128]]);
});

const refused: [name: string, changed: Partial<AttentionLists>, message: string][] = [
  ["a context within the budget", { context: "64" }, "nothing would be selected"],
  ["a head of no multiple of 16", { headDim: "40" }, "the nearest is 48"],
  ["a head of more than 512", { headDim: "1024" }, "the nearest is 512"],
  ["an unknown dtype", { dtype: "fp8" }, "bf16, f16, f32"],
  ["a batch past the largest", { batch: "5000" }, "at most 4096"],
];
for (const [name, changed, message] of refused) {
  Deno.test(`planAttention() refuses ${name}`, () => {
    assertThrows(() => planAttention({ ...tinyLists, ...changed }), PagesiftError, message);
  });
}

deviceTest("planLayers() says the split and what would fit when two layers do not", (device) => {
  const plan = planAttention({ ...tinyLists, context: "1m", batch: "2048", heads: "32/8", headDim: "128" });
  const [one] = plan.cases;
  const error = assertThrows(() => one && planLayers(one, plan, device), PagesiftError, "more than the 2147483647");
  assertEquals([error.kind, /--batch \d+ or --context \d+ would fit$/.test(error.message)], ["memory", true]);
});

deviceTest("planLayers() rotates a small case over many layers", (device) => {
  const plan = planAttention(tinyLists);
  const [one] = plan.cases;
  assertEquals(one && planLayers(one, plan, device), 96);
});
