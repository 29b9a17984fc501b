import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { planModel } from "../../bench/bench_model.ts";
import { checkGenerateFits } from "../../bench/generate_memory.ts";
import { caseNeed, checkContext, decodeArms, type GenerateLists, planGenerate } from "../../bench/generate_plan.ts";
import { configOf } from "../../bench/shapes.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { openDevice } from "../support/device.ts";
import { tinyGenerate } from "./tiny.ts";

const config = configOf("default", 32_768);

Deno.test("planGenerate() measures prompts once for each depth and page size", () => {
  const { cases } = planGenerate(tinyGenerate);
  assertEquals(cases.map(({ prompts }) => prompts.length), [1, 0, 1, 0]);
});

Deno.test("planGenerate() leaves out cases without any test", () => {
  assertEquals(planGenerate({ ...tinyGenerate, decode: "0" }).cases.length, 2);
});

Deno.test("planGenerate() notes what fills the cache at depth", () => {
  assertStringIncludes(planGenerate(tinyGenerate).notes.join(" "), "random keys");
});

Deno.test("planGenerate() notes where a budget covers the depth", () => {
  assertStringIncludes(planGenerate(tinyGenerate).notes.join(" "), "Budget 64 covers depth 0");
});

Deno.test("decodeArms() has dense first, then every scorer where it selects", () => {
  const plan = planGenerate(tinyGenerate);
  const names = plan.cases.map((one) => decodeArms(plan, one, config, false).map(({ name, scorer }) => scorer ?? name));
  assertEquals(names, [["dense"], ["dense"], ["dense", "unique", "diag"], ["dense", "unique", "diag"]]);
});

Deno.test("caseNeed() asks for the statistics of all scorers", () => {
  const plan = planGenerate({ ...tinyGenerate, scorer: "mean,diag,quest" });
  const [one] = plan.cases;
  assertEquals(one && caseNeed(plan, one).extra, { variance: true, minMax: true });
});

const refused: [name: string, changed: Partial<GenerateLists>, message: string][] = [
  ["nothing to measure", { prompt: "0", decode: "0" }, "leave nothing to measure"],
  ["a batch past the largest", { batch: "257" }, "at most 256"],
  ["an empty list of depths", { depth: "" }, "-d is empty"],
  ["a budget below a page", { budget: "4" }, "the smallest is 8"],
];
for (const [name, changed, message] of refused) {
  Deno.test(`planGenerate() refuses ${name}`, () => {
    assertThrows(() => planGenerate({ ...tinyGenerate, ...changed }), PagesiftError, message);
  });
}

Deno.test("checkContext() counts the tokens of a test beyond the model's context", () => {
  const plan = planGenerate({ ...tinyGenerate, depth: "32k" });
  assertEquals(assertThrows(() => checkContext(plan, config), PagesiftError, "over by 8").kind, "context");
});

Deno.test("configOf() lists the known shapes", () => {
  assertThrows(() => configOf("qwen", 8), PagesiftError, "qwen3-8b, qwen3-0.6b, llama-3.2-1b, llama-3.3-70b, default");
});

Deno.test("checkGenerateFits() names the memory split and what would fit", async () => {
  const plan = planGenerate({ ...tinyGenerate, depth: "16m", batch: "16" });
  const planned = await planModel({ shape: "qwen3-8b", name: "", device: "cpu", threads: 1 }, plan.longest);
  using device = openDevice();
  const error = assertThrows(() => checkGenerateFits(device, plan, planned), PagesiftError, "weights 15.3 GiB, KV");
  assertEquals(error.kind, "memory");
});
