/** `pagesift plan` as a process of its own. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import type { PlanReport } from "../../bench/plan_report.ts";
import { fixtureFolder } from "../support/fixture_model.ts";
import { type Finished, runDeno } from "../support/process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));

function plan(...args: string[]): Promise<Finished> {
  return runDeno(["run", "-A", MAIN, "plan", "-t", "2", ...args], { CUDA_VISIBLE_DEVICES: "" });
}

async function planJson(...args: string[]): Promise<PlanReport> {
  const { code, stdout, stderr } = await plan("--device", "cpu", "-o", "json", ...args);
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout);
}

Deno.test("plan prints the parts of the memory and their sum", async () => {
  const { code, stdout, stderr } = await plan("--device", "cpu", "-c", "4k");
  assertEquals([code, stderr], [0, ""]);
  for (const part of ["weights", "KV cache", "page statistics", "total"]) assertStringIncludes(stdout, part);
  const counts = [...stdout.matchAll(/([\d,]+) bytes$/gm)].map(([, count = ""]) => Number(count.replaceAll(",", "")));
  assertEquals(counts.at(-1), counts.slice(0, -1).reduce((sum, count) => sum + count, 0));
});

Deno.test("plan -o json says what a step reads, dense and sparse", async () => {
  const { bytes, step_bytes: step } = await planJson("-c", "8k");
  assert(step.dense > bytes.weights && step.dense < bytes.total);
  assert((step.sparse ?? 0) > bytes.weights && (step.sparse ?? 0) < step.dense);
});

Deno.test("plan --sparse off names no sparse step", async () => {
  const { step_bytes: step, auto_selects_from_tokens: from } = await planJson("-c", "8k", "--sparse", "off");
  assertEquals([step.sparse, from], [undefined, undefined]);
});

Deno.test("plan --parallel multiplies the keys and values", async () => {
  const [one, four] = await Promise.all([planJson("-c", "4k"), planJson("-c", "4k", "--parallel", "4")]);
  assert(four.bytes.kv >= 3.9 * one.bytes.kv && four.bytes.weights === one.bytes.weights);
});

Deno.test("plan --devices says what each device needs", async () => {
  const shape = ["--shape", "qwen3-8b", "-c", "4k"];
  const [one, two] = await Promise.all([planJson(...shape), planJson(...shape, "--devices", "0,1")]);
  assertEquals([one.device.count, two.device.count, one.bytes.kv], [1, 2, 2 * two.bytes.kv]);
});

Deno.test("plan of a shape that no memory holds says so and succeeds", async () => {
  const report = await planJson("--shape", "llama-3.3-70b", "-c", "1024k", "--parallel", "64");
  assertEquals([report.fits, report.largest_context_tokens, report.largest_batch], [false, 0, 0]);
});

Deno.test("plan --measure predicts the speed from a measured bandwidth", async () => {
  const { speed } = await planJson("-c", "1k", "--measure");
  assert(speed && speed.bytes_per_second > 1e8 && speed.dense_tokens_per_second > 1);
});

const refused: [name: string, args: string[], code: number, message: RegExp][] = [
  ["a context beyond the model's", ["-m", fixtureFolder("llama-f32"), "-c", "100k"], 2, /102400/],
  ["a model that does not exist", ["-m", "./no/such/model"], 3, /no\/such\/model/],
  ["a shape beside a model", ["-m", "x", "--shape", "default"], 2, /--shape/],
  ["an unknown shape", ["--shape", "qwen"], 2, /llama-3\.3-70b/],
  ["devices that cannot share the KV heads", ["--shape", "qwen3-8b", "--devices", "0,1,2", "-c", "1k"], 2, /--devices/],
  ["a word", ["hello"], 2, /"hello"/],
  ["a GPU where there is none", ["--device", "cuda", "-c", "1k"], 5, /^Error: .*(--device cpu|deno task build).*\n$/],
];
for (const [name, args, code, message] of refused) {
  Deno.test(`plan refuses ${name}`, async () => {
    const finished = await plan(...args);
    assertEquals(finished.code, code, finished.stderr);
    assertMatch(finished.stderr, message);
  });
}
