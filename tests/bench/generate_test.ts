import { assert, assertEquals } from "@std/assert";
import { openModel, planModel } from "../../bench/bench_model.ts";
import { benchGenerate } from "../../bench/generate.ts";
import { type GenerateLists, planGenerate } from "../../bench/generate_plan.ts";
import type { Row } from "../../bench/row.ts";
import { liveHandles } from "../../ffi/library.ts";
import { DEVICE_KIND, isolateLibrary } from "../support/device.ts";
import { fixtureFolder } from "../support/fixture_model.ts";
import { tinyGenerate } from "./tiny.ts";

/** All rows of a run over a tiny model; nothing may be left open. */
async function measure(changed: Partial<GenerateLists> = {}): Promise<Row[]> {
  isolateLibrary();
  const plan = planGenerate({ ...tinyGenerate, ...changed });
  const choice = { folder: fixtureFolder("qwen3-qknorm-f32"), name: "org/qwen3", device: DEVICE_KIND, threads: 2 };
  const rows: Row[] = [];
  {
    await using model = await openModel(choice, await planModel(choice, plan.longest), plan.largestBatch);
    for await (const each of benchGenerate(model, plan)) rows.push(...each);
  }
  assertEquals(liveHandles(), 0);
  return rows;
}

Deno.test("benchGenerate() yields prompts and decode steps at every depth, sparse where it selects", async () => {
  const rows = await measure({ batch: "1" });
  const names = rows.map(({ arm, scorer, prompt_tokens: prompt, depth_tokens: depth }) =>
    `${prompt ? "pp" : "tg"}@${depth} ${scorer ?? arm}`
  );
  assertEquals(names, ["pp@0 dense", "tg@0 dense", "pp@200 dense", "tg@200 dense", "tg@200 unique", "tg@200 diag"]);
});

Deno.test("benchGenerate() reports from the native counters what sparse steps read", async () => {
  const rows = await measure({ depth: "200", prompt: "0", scorer: "unique" });
  assertEquals(rows.map(({ arm, pages_read: pages }) => [arm, (pages ?? 0) === 8]), [
    ...[["dense", false], ["sparse", true], ["dense", false], ["sparse", true]],
  ]);
});

Deno.test("benchGenerate() names the model by the last part of its name", async () => {
  const [row] = await measure({ depth: "0", batch: "1" });
  assertEquals(row?.model, "qwen3");
});

Deno.test("benchGenerate() can fill the depth by a prefill", async () => {
  const rows = await measure({ depth: "100", prompt: "0", prefillDepth: true, batch: "2" });
  assert(rows.every(({ tokens_per_s: speed }) => (speed ?? 0) > 0));
});
