/** What a plan says against what the device counts once the same run has decoded. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { planModel } from "../../bench/bench_model.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { withModelDefaults } from "../../engine/folder/sparsity_file.ts";
import { largestBatch, largestContext, planMemory, type RunPlan } from "../../engine/memory_plan.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { EngineOptions } from "../../engine/engine.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { DEVICE_KIND, HAS_TWO_DEVICES, openDevice } from "../support/device.ts";
import { fixtureFolder, loadFolder } from "../support/fixture_model.ts";
import { withFiles } from "../support/folders.ts";

const DEFAULT = join(ROOT, "models", "default");

interface Run {
  contextTokens: number;
  numSequences?: number;
  sparse?: SparseOptions;
  kvType?: EngineOptions["kvType"];
  devices?: number[];
}

async function planOf(
  path: string,
  { contextTokens, numSequences = 1, sparse = {}, kvType, devices = [] }: Run,
): Promise<RunPlan> {
  const planned = await planModel(
    { folder: path, name: path, device: DEVICE_KIND, threads: 2, devices, ...kvType && { kvType } },
    contextTokens,
  );
  const options = withModelDefaults(planned.sparsity?.defaults ?? {}, sparse);
  const policy = resolvePolicy(options, planned.config.slidingWindows, DEVICE_KIND === "cuda");
  return { ...planned, policy, contextTokens, numSequences };
}

/** What all devices together count after requests that fill the context. */
async function allocatedBytes(path: string, run: Run): Promise<number> {
  const { contextTokens, numSequences = 1, sparse = {}, kvType, devices = [] } = run;
  await using engine = await loadFolder(path, {
    ...{ maxContext: contextTokens, sparse, devices },
    ...kvType && { kvType },
  });
  const maxTokens = 3;
  const requests = Array.from({ length: numSequences }, (_, row) => ({
    prompt: Array.from({ length: contextTokens - maxTokens + 1 }, (_, index) => index === 0 ? row + 5 : index % 7 + 5),
    options: { maxTokens },
  }));
  for await (const _ of engine.generateBatch(requests, { parallel: numSequences }));
  return engine.describeDevice().allocatedBytes;
}

async function assertExact(path: string, run: Run): Promise<void> {
  const plan = await planOf(path, run);
  const { devices } = run;
  using device = openDevice({ ...devices && { indices: devices } });
  assertEquals(device.members * planMemory(device, plan).total, await allocatedBytes(path, run));
}

const runs: [model: string, Run][] = [
  ["llama-f32", { contextTokens: 100 }],
  ["llama-f32", { contextTokens: 200, numSequences: 3, sparse: { pageSize: 16, budgetTokens: 64, mode: "on" } }],
  ["llama-linear-rope-f16", { contextTokens: 90, sparse: { scorer: "quest" } }],
  ["llama-f32", { contextTokens: 20, numSequences: 70 }],
  ["gemma3-bf16", { contextTokens: 120, kvType: "q8" }],
  ["qwen3-moe-f32", { contextTokens: 64, numSequences: 2 }],
  ["smollm3-f32", { contextTokens: 77 }],
  ["phi3-longrope-f32", { contextTokens: 60 }],
];
const shared: [model: string, Run][] = [
  ["llama-f32", { contextTokens: 100, devices: [0, 1] }],
  ["llama-f32", { contextTokens: 20, numSequences: 70, devices: [0, 1] }],
  ["gemma3-bf16", { contextTokens: 120, kvType: "q8", devices: [0, 1] }],
  ["qwen3-moe-f32", { contextTokens: 64, numSequences: 2, devices: [0, 1] }],
  ["phi3-longrope-f32", { contextTokens: 60, devices: [0, 1] }],
  ["llama-linear-rope-f16", { contextTokens: 600, devices: [0, 1, 2, 3] }],
];
for (const [model, run] of HAS_TWO_DEVICES ? [...runs, ...shared] : runs) {
  const settings = JSON.stringify(run);
  Deno.test(`planMemory() is exact to the byte for ${model}, ${settings}`, () =>
    assertExact(fixtureFolder(model), run));
}

Deno.test("planMemory() is exact to the byte for the default model with its own sparse settings", () =>
  assertExact(DEFAULT, { contextTokens: 1024 }));

Deno.test("planMemory() is exact to the byte for a GGUF file", () =>
  withFiles({}, async (folder) => {
    const { path } = await convertGguf(DEFAULT, join(folder, "model.gguf"));
    await assertExact(path, { contextTokens: 300, numSequences: 2 });
  }));

Deno.test("largestContext() fits, and one token more does not", async () => {
  const run = await planOf(fixtureFolder("llama-f32"), { contextTokens: 64, numSequences: 2 });
  const long = { ...run, config: { ...run.config, maxContext: 1e6 } };
  using device = openDevice();
  const room = 64 << 20;
  const contextTokens = largestContext(device, long, room);
  assert(planMemory(device, { ...long, contextTokens }).total <= room);
  assert(planMemory(device, { ...long, contextTokens: contextTokens + 1 }).total > room);
});

Deno.test("largestBatch() fits, and one sequence more does not", async () => {
  const run = await planOf(fixtureFolder("llama-f32"), { contextTokens: 200 });
  using device = openDevice();
  const room = planMemory(device, { ...run, numSequences: 7 }).total;
  assertEquals(largestBatch(device, run, room, 64), 7);
});

Deno.test("largestContext() is 0 where not even the weights fit", async () => {
  using device = openDevice();
  const run = await planOf(fixtureFolder("llama-f32"), { contextTokens: 64 });
  assertEquals(largestContext(device, run, 1000), 0);
});

Deno.test("planMemory() refuses a context beyond the model's", async () => {
  using device = openDevice();
  const run = await planOf(fixtureFolder("llama-f32"), { contextTokens: 1e6 });
  assertEquals(assertThrows(() => planMemory(device, run), PagesiftError, "1000000").kind, "usage");
});
