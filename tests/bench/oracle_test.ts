import { assertAlmostEquals, assertEquals } from "@std/assert";
import { agreementOf, forcedPages, oraclePages } from "../../bench/oracle.ts";
import { groupMasses } from "../../bench/page_mass.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { deviceTest } from "../support/device.ts";

const rule = { budgetPages: 4, sinkPages: 1, recentPages: 2 };
const mass = Float64Array.of(0.05, 0.3, 0.1, 0.2, 0.1, 0.15, 0.05, 0.05);

Deno.test("forcedPages() takes the recent pages first if both do not fit", () => {
  assertEquals([...forcedPages(8, { ...rule, budgetPages: 2 })], [6, 7]);
});

Deno.test("oraclePages() fills up with the pages of highest mass, ascending", () => {
  assertEquals(oraclePages(mass, rule), [0, 1, 6, 7]);
});

Deno.test("oraclePages() gives equal masses to the lower page", () => {
  assertEquals(oraclePages(new Float64Array(8).fill(1 / 8), { ...rule, budgetPages: 5 }), [0, 1, 2, 6, 7]);
});

Deno.test("oraclePages() takes all pages within the budget", () => {
  assertEquals(oraclePages(mass.slice(0, 3), rule), [0, 1, 2]);
});

Deno.test("agreementOf() leaves the forced pages out of the recall", () => {
  assertEquals(agreementOf(mass, [0, 2, 6, 7], rule).recall, 0);
});

Deno.test("agreementOf() counts the forced pages in the mass", () => {
  const { mass: kept, oracleMass } = agreementOf(mass, [0, 2, 6, 7], rule);
  assertAlmostEquals(kept, 0.25, 1e-12);
  assertAlmostEquals(oracleMass, 0.45, 1e-12);
});

deviceTest("groupMasses() averages the softmax over the stored keys over the heads of a group", (device) => {
  const [tokens, headDim, pageSize] = [20, 16, 8];
  const cache = KvCache.create(device, {
    ...{ numPages: 4, maxPagesPerSequence: 3, numLayers: 1, numQueryHeads: 2, numKvHeads: 1, headDim, pageSize },
    ...{ dtype: "f32", statistics: {}, maxSequences: 1 },
  });
  const keys = Float32Array.from({ length: tokens * headDim }, (_, index) => Math.sin(index * 1.7));
  const pages = [2, 0, 3];
  const slots = Int32Array.from({ length: tokens }, (_, at) => (pages[Math.floor(at / 8)] ?? 0) * 8 + at % 8);
  const k = device.upload(keys, [tokens, 1, headDim]);
  cache.append(0, k, k, device.upload(slots, [tokens]));
  const query = Float32Array.from({ length: 2 * headDim }, (_, index) => Math.cos(index));
  const [found] = groupMasses(cache, {
    layer: 0,
    q: device.upload(query, [1, 2, headDim]),
    sequences: {
      pageTable: device.upload(Int32Array.from(pages), [1, 3]),
      lengths: device.upload(Int32Array.of(20), [1]),
    },
    mass: device.createTensor("f32", [1, 2, 3]),
    numPages: 3,
  });
  plainMass(keys, query, tokens, headDim).forEach((value, page) => {
    assertAlmostEquals(found?.[page] ?? NaN, value, 1e-6);
  });
});

/** `[P]` for two query heads that share a KV head. */
function plainMass(keys: Float32Array, query: Float32Array, tokens: number, d: number): number[] {
  const out = [0, 0, 0];
  for (const head of [0, 1]) {
    const weights = Array.from({ length: tokens }, (_, token) => {
      let dot = 0;
      for (let dim = 0; dim < d; dim++) dot += query[head * d + dim]! * keys[token * d + dim]!;
      return Math.exp(dot / Math.sqrt(d));
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    weights.forEach((weight, token) => out[Math.floor(token / 8)]! += weight / total / 2);
  }
  return out;
}
