import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { KvType } from "../../engine/pages/kv_type.ts";
import { collect, loadFixture, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";

/** Root of the mean square difference, relative to the spread of what is wanted. */
function relativeError(found: Float32Array, wanted: Float32Array): number {
  const mean = wanted.reduce((sum, x) => sum + x, 0) / wanted.length;
  const spread = wanted.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return Math.sqrt(found.reduce((sum, x, i) => sum + (x - wanted[i]!) ** 2, 0) / spread);
}

async function logits(kvType: KvType): Promise<Float32Array> {
  await using engine = await loadFixture(MODEL, { kvType });
  return await engine.logits(promptIds(MODEL));
}

for (const [kvType, limit] of [["bf16", 0.02], ["q8", 0.02], ["fp8", 0.05]] as const) {
  Deno.test(`keys and values as ${kvType} change logits by less than ${100 * limit} %, but do change them`, async () => {
    const error = relativeError(await logits(kvType), await logits("auto"));
    assert(error > 0 && error < limit, `relative error ${error}`);
  });
}

Deno.test("keys and values in 8 bits take a byte per number and four per row", async () => {
  const peaks: number[] = [];
  let headDim = 0;
  for (const kvType of ["auto", "q8"] as const) {
    await using engine = await loadFixture(MODEL, { kvType });
    await collect(engine.generate(promptIds(MODEL), { maxTokens: 4 }));
    assertEquals(engine.kvType, kvType === "auto" ? "f32" : "q8");
    peaks.push(engine.stats.peakKvBytes);
    ({ headDim } = engine.config);
  }
  assertAlmostEquals(peaks[1]! / peaks[0]!, (headDim + 4) / (4 * headDim), 1e-9);
});
