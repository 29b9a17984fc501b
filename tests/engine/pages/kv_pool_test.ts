import { assertEquals, assertThrows } from "@std/assert";
import type { ModelConfig } from "../../../engine/folder/config.ts";
import { cacheShape, KvPool } from "../../../engine/pages/kv_pool.ts";
import { resolvePolicy } from "../../../engine/pages/page_policy.ts";
import { Random } from "../../../engine/sample/random.ts";
import type { Sequence } from "../../../engine/pages/sequence.ts";
import type { Device } from "../../../ffi/device.ts";
import type { CacheField } from "../../../ffi/kv_cache.ts";
import { pageStatistics } from "../../reference/page_statistics.ts";
import { assertNumbersClose } from "../../support/compare.ts";
import { deviceTest } from "../../support/device.ts";
import { appendAt, cacheShape as testShape, type KeysAndValues, randomSequence } from "../../support/paged.ts";

const HEADS = { numQueryHeads: 4, numKvHeads: 2, headDim: 16 };
const SHAPE = testShape({ ...HEADS, dtype: "f32", pageSize: 8 }, { numLayers: 2 });
const WIDTH = HEADS.numKvHeads * HEADS.headDim;

/** Appends the sequence's next tokens in both layers. */
function append(pool: KvPool, sequence: Sequence, part: KeysAndValues): void {
  const slots = sequence.extend(part.keys.length / WIDTH);
  for (const layer of [0, 1]) appendAt(pool.cache, part, slots, layer);
}

function firstTokens({ keys, values }: KeysAndValues, count: number): KeysAndValues {
  return { keys: keys.slice(0, count * WIDTH), values: values.slice(0, count * WIDTH) };
}

/** Asserts that the last page's statistics in a layer are those of the sequence's keys. */
function assertTail(pool: KvPool, sequence: Sequence, keys: Float32Array<ArrayBuffer>, layer: number): void {
  const wanted = pageStatistics(keys, HEADS.numKvHeads, HEADS.headDim, 8).at(-1) ?? [];
  const read = (field: CacheField): Float32Array => pool.cache.readPage(layer, sequence.pages.at(-1) ?? -1, field);
  const size = [HEADS.numKvHeads, HEADS.headDim];
  assertNumbersClose(read("mean"), wanted.flatMap(({ mean }) => mean), size);
  assertNumbersClose(read("std"), wanted.map(({ std }) => std), [HEADS.numKvHeads]);
  assertNumbersClose(read("var"), wanted.flatMap(({ variance }) => variance), size);
  assertNumbersClose(read("min"), wanted.flatMap(({ min }) => min), size);
  assertNumbersClose(read("max"), wanted.flatMap(({ max }) => max), size);
}

/** A sequence of 22 tokens that is cut to 19, in the middle of its last page. */
function truncated(device: Device): { pool: KvPool; sequence: Sequence; kept: KeysAndValues } {
  const pool = new KvPool(device, SHAPE);
  const sequence = pool.openSequence();
  const part = randomSequence(new Random(3), HEADS, 22);
  append(pool, sequence, part);
  pool.truncate(sequence, 19);
  return { pool, sequence, kept: firstTokens(part, 19) };
}

for (const layer of [0, 1]) {
  deviceTest(`KvPool.truncate renews the statistics of the last page in layer ${layer}`, (device) => {
    const { pool, sequence, kept } = truncated(device);
    assertTail(pool, sequence, kept.keys, layer);
  });
}

deviceTest("KvPool.truncate leaves a page that later tokens complete as if nothing had been cut", (device) => {
  const { pool, sequence, kept } = truncated(device);
  const others = randomSequence(new Random(4), HEADS, 4);
  append(pool, sequence, others);
  assertTail(pool, sequence, Float32Array.from([...kept.keys, ...others.keys]), 1);
});

deviceTest("KvPool.truncate to a page border frees the page and leaves the one before as it was", (device) => {
  const { pool, sequence, kept } = truncated(device);
  pool.truncate(sequence, 16);
  assertEquals(sequence.pages, [0, 1]);
  assertTail(pool, sequence, firstTokens(kept, 16).keys, 0);
});

deviceTest("KvPool.peakKvBytes counts whole pages over layers and KV heads", (device) => {
  const pool = new KvPool(device, SHAPE);
  const sequence = pool.openSequence();
  sequence.extend(17);
  sequence.release();
  assertEquals(pool.peakKvBytes, 3 * 2 * 8 * 16 * 4 * 2 * 2);
});

for (const [scorer, bytes] of [["unique", 16 * 4 + 4], ["mean", 64], ["diag", 128], ["quest", 128]] as const) {
  deviceTest(`KvPool.statisticsBytes counts what ${scorer} reads of a page`, (device) => {
    const counters = { ...new KvPool(device, SHAPE).cache.counters(), pagesScored: 3 };
    assertEquals(new KvPool(device, SHAPE).statisticsBytes(resolvePolicy({ scorer }, [0]), counters), 3 * bytes);
  });
}

deviceTest("KvPool.statisticsBytes counts coarse copies, of 16 bytes, 16 of codes and 4 of scales", (device) => {
  const pool = new KvPool(device, SHAPE);
  const counters = { ...pool.cache.counters(), copiesScored: 5 };
  assertEquals(pool.statisticsBytes(resolvePolicy({ scorer: "diag" }, [0]), counters), 5 * 36);
});

deviceTest("KvPool.covers what it has room for, and nothing more", (device) => {
  const pool = new KvPool(device, { ...SHAPE, statistics: { minMax: true } });
  const { shape } = pool;
  assertEquals(pool.covers({ ...shape, numPages: 1, maxPagesPerSequence: 1, maxSequences: 1, statistics: {} }), true);
  const larger = [
    { numPages: 9 },
    { maxPagesPerSequence: 9 },
    { maxSequences: 5 },
    { pageSize: 16 },
    { statistics: { variance: true } },
  ];
  assertEquals(larger.map((change) => pool.covers({ ...shape, ...change })), larger.map(() => false));
});

deviceTest("KvPool.covers nothing once closed", (device) => {
  const pool = new KvPool(device, SHAPE);
  pool[Symbol.dispose]();
  assertEquals(pool.covers(SHAPE), false);
});

/** The config fields that a cache needs. */
const CONFIG = { ...HEADS, numLayers: 2, scales: { attention: 0.25 } } as ModelConfig;

Deno.test("cacheShape leaves each sequence a page that it fills in part", () => {
  const need = { totalTokens: 33, longestTokens: 17, maxSequences: 2 };
  const { numPages, maxPagesPerSequence } = cacheShape(CONFIG, { dtype: "f32" }, resolvePolicy({}, [0, 0]), need);
  assertEquals([numPages, maxPagesPerSequence], [7, 3]);
});

Deno.test("cacheShape keeps the statistics that the scorer reads, and no others", () => {
  const need = { totalTokens: 8, longestTokens: 8, maxSequences: 1 };
  const kept = (["unique", "diag", "quest", "mean"] as const).map((scorer) =>
    cacheShape(CONFIG, { dtype: "f32" }, resolvePolicy({ scorer }, [0, 0]), need).statistics
  );
  const none = { variance: false, minMax: false, coarse: false };
  assertEquals(kept, [none, { ...none, variance: true }, { ...none, minMax: true }, none]);
});

Deno.test("cacheShape keeps coarse copies for diag at two levels, and at no other", () => {
  const need = { totalTokens: 8, longestTokens: 8, maxSequences: 1 };
  const policies = [{}, { levels: 1 }, { scorer: "unique", levels: 2 }, { scorer: "diag", levels: 2 }] as const;
  const kept = policies.map((sparse) =>
    cacheShape(CONFIG, { dtype: "bf16" }, resolvePolicy(sparse, [0, 0], true), need).statistics.coarse
  );
  assertEquals(kept, [true, false, false, true]);
});

deviceTest("KvPool refuses a sequence that outgrows it, and serves the others on", (device) => {
  const pool = new KvPool(device, SHAPE);
  const [first, second] = [pool.openSequence(), pool.openSequence()];
  first.extend(60);
  assertThrows(() => second.extend(1), RangeError);
  assertEquals(first.extend(4).length, 4);
});
