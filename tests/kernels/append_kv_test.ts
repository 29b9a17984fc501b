import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { type PageStatistics, pageStatistics } from "../reference/page_statistics.ts";
import { assertSameContents, contents } from "../support/cache_contents.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { GRID, gridLengths } from "../support/grid.ts";
import { ROUNDING } from "../support/numbers.ts";
import {
  appendAt,
  buildPaged,
  cacheShape,
  type KeysAndValues,
  type Paged,
  type PagedShape,
  randomSequence,
  slotsOf,
} from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 32 };
const STATISTICS = { mean: "mean", var: "variance", min: "min", max: "max", std: "std" } as const;

/** What a page should hold of a field. */
function wantedStatistics(heads: PageStatistics[], field: keyof typeof STATISTICS): number[] {
  return heads.flatMap((head) => head[STATISTICS[field]]);
}

function assertStatistics(paged: Paged, sequence: number): void {
  const { numKvHeads, headDim, pageSize, dtype } = paged.shape;
  const pages = pageStatistics(paged.stored[sequence]!.keys, numKvHeads, headDim, pageSize);
  for (const field of ["mean", "std", "var", "min", "max"] as const) {
    const found = paged.tables[sequence]!.map((page) => Array.from(paged.cache.readPage(0, page, field)));
    const wanted = pages.map((heads) => wantedStatistics(heads, field));
    assertNumbersClose(found.flat(), wanted.flat(), [pages.length, wanted[0]!.length], {
      relative: 1e-5 + ROUNDING[dtype],
      absolute: 1e-7,
    });
  }
}

/** Every NaN with the same bits. */
function oneNaN(numbers: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  return numbers.map((x) => Number.isNaN(x) ? NaN : x);
}

/** Keys or values `[Hk, S, d]` of a page, as many tokens as it holds. */
function assertStored(paged: Paged, sequence: number, field: "keys" | "values"): void {
  const { numKvHeads, headDim, pageSize } = paged.shape;
  const stored = paged.stored[sequence]![field];
  paged.tables[sequence]!.forEach((physical, page) => {
    const held = Math.min(pageSize, paged.tokens[sequence]! - page * pageSize);
    const found = paged.cache.readPage(0, physical, field);
    for (let head = 0; head < numKvHeads; head++) {
      for (let place = 0; place < held; place++) {
        const from = ((page * pageSize + place) * numKvHeads + head) * headDim;
        const at = (head * pageSize + place) * headDim;
        assertSameBits(oneNaN(found.slice(at, at + headDim)), oneNaN(stored.slice(from, from + headDim)));
      }
    }
  });
}

for (const gridCase of GRID) {
  deviceTest(`append stores keys, values and statistics in ${gridCase.name}`, (device) => {
    const random = new Random(gridCase.seed);
    const parts = gridLengths(gridCase).map((tokens) => randomSequence(random, gridCase.shape, tokens));
    const paged = buildPaged(device, gridCase.shape, parts, random);
    for (let sequence = 0; sequence < parts.length; sequence++) {
      assertStored(paged, sequence, "keys");
      assertStored(paged, sequence, "values");
      assertStatistics(paged, sequence);
    }
  });
}

function part(sequence: KeysAndValues, shape: PagedShape, first: number, count: number): KeysAndValues {
  const width = shape.numKvHeads * shape.headDim;
  const cut = (numbers: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> =>
    numbers.slice(first * width, (first + count) * width);
  return { keys: cut(sequence.keys), values: cut(sequence.values) };
}

const TABLE = [5, 0, 3, 6];

for (const tokens of [1, 7, 8, 9, 16, 25]) {
  deviceTest(`append of ${tokens} tokens one at a time equals append in one go`, (device) => {
    const sequence = randomSequence(new Random(tokens), SHAPE, tokens);
    const [whole, single] = [0, 1].map(() => KvCache.create(device, cacheShape(SHAPE)));
    appendAt(whole!, sequence, slotsOf(TABLE, 8, 0, tokens));
    for (let t = 0; t < tokens; t++) appendAt(single!, part(sequence, SHAPE, t, 1), slotsOf(TABLE, 8, t, 1));
    const table = TABLE.slice(0, Math.ceil(tokens / 8));
    assertSameContents(contents(single!, table, tokens), contents(whole!, table, tokens));
  });
}

deviceTest("append writes its own layer and no other", (device) => {
  const cache = KvCache.create(device, cacheShape(SHAPE, { numLayers: 3 }));
  const sequence = randomSequence(new Random(1), SHAPE, 20);
  appendAt(cache, sequence, slotsOf(TABLE, 8, 0, 20), 1);
  for (const layer of [0, 2]) {
    for (const numbers of contents(cache, TABLE, 32, layer)) assertEquals(numbers.every((x) => x === 0), true);
  }
});

for (const tokens of [300, 301]) {
  deviceTest(`append of two interleaved sequences of ${tokens} tokens counts every token of a page`, (device) => {
    const shape = { ...SHAPE, pageSize: 64, headDim: 256 };
    const cache = KvCache.create(device, cacheShape(shape, { numPages: 10, maxPagesPerSequence: 10 }));
    const sequence = randomSequence(new Random(2), shape, 2 * tokens);
    const tables = [[7, 2, 9, 0, 4], [1, 8, 3, 6, 5]];
    const slots = Int32Array.from(
      { length: 2 * tokens },
      (_, i) => slotsOf(tables[i % 2]!, 64, Math.floor(i / 2), 1)[0]!,
    );
    appendAt(cache, sequence, slots);
    const alone = KvCache.create(device, cacheShape(shape, { numPages: 10, maxPagesPerSequence: 10 }));
    for (let t = 0; t < 2 * tokens; t++) appendAt(alone, part(sequence, shape, t, 1), slots.slice(t, t + 1));
    for (const table of tables) {
      assertSameContents(contents(cache, table, tokens), contents(alone, table, tokens));
    }
  }, { threads: 3 });
}

deviceTest("append to a page of other content, NaN among it, equals append to a fresh page", (device) => {
  const [reused, fresh] = [0, 1].map(() => KvCache.create(device, cacheShape(SHAPE)));
  const before = randomSequence(new Random(3), SHAPE, 32);
  before.keys.fill(NaN, 100);
  before.values.fill(NaN, 100);
  appendAt(reused!, before, slotsOf(TABLE, 8, 0, 32));
  const sequence = randomSequence(new Random(4), SHAPE, 11);
  for (const cache of [reused!, fresh!]) appendAt(cache, sequence, slotsOf(TABLE, 8, 0, 11));
  assertSameContents(contents(reused!, TABLE.slice(0, 2), 11), contents(fresh!, TABLE.slice(0, 2), 11));
});

for (const [name, keep] of [["one token", 1], ["some tokens", 5], ["all but one token", 7]] as const) {
  deviceTest(`renewPage after a truncation that leaves ${name} of a page equals a fresh page`, (device) => {
    const [cut, fresh] = [0, 1].map(() => KvCache.create(device, cacheShape(SHAPE, { numLayers: 2 })));
    const sequence = randomSequence(new Random(5), SHAPE, 16);
    for (const layer of [0, 1]) {
      appendAt(cut!, sequence, slotsOf(TABLE, 8, 0, 16), layer);
      appendAt(fresh!, part(sequence, SHAPE, 0, 8 + keep), slotsOf(TABLE, 8, 0, 8 + keep), layer);
    }
    cut!.renewPage(TABLE[1]!, keep);
    for (const layer of [0, 1]) {
      const [found, wanted] = [cut!, fresh!].map((cache) => contents(cache, TABLE.slice(0, 2), 8 + keep, layer));
      assertSameContents(found!, wanted!);
    }
  });
}

deviceTest("append after a truncation equals the same tokens in a fresh cache", (device) => {
  const [cut, fresh] = [0, 1].map(() => KvCache.create(device, cacheShape(SHAPE)));
  const [first, second] = [6, 7].map((seed) => randomSequence(new Random(seed), SHAPE, 16));
  appendAt(cut!, first!, slotsOf(TABLE, 8, 0, 16));
  cut!.renewPage(TABLE[1]!, 3);
  appendAt(cut!, part(second!, SHAPE, 0, 4), slotsOf(TABLE, 8, 11, 4));
  appendAt(fresh!, part(first!, SHAPE, 0, 11), slotsOf(TABLE, 8, 0, 11));
  appendAt(fresh!, part(second!, SHAPE, 0, 4), slotsOf(TABLE, 8, 11, 4));
  assertSameContents(contents(cut!, TABLE.slice(0, 2), 15), contents(fresh!, TABLE.slice(0, 2), 15));
});

deviceTest("append of equal keys keeps the key as the mean and no spread", (device) => {
  const keys = Float32Array.from({ length: 7 * 64 }, (_, i) => Math.fround(0.1 + (i % 64) / 3));
  const cache = KvCache.create(device, cacheShape(SHAPE));
  appendAt(cache, { keys, values: keys }, slotsOf(TABLE, 8, 0, 7));
  assertSameBits(cache.readPage(0, TABLE[0]!, "mean"), keys.slice(0, 64));
  assertEquals(Array.from(cache.readPage(0, TABLE[0]!, "std")), [0, 0]);
});

for (const place of [0, 3, 6]) {
  deviceTest(`append of a NaN as key number ${place} of a page shows in every statistic of its dimension`, (device) => {
    const sequence = randomSequence(new Random(8), SHAPE, 7);
    sequence.keys[place * 64 + 5] = NaN;
    assertStatistics(buildPaged(device, SHAPE, [sequence], new Random(9)), 0);
  });
}

/** Rows whose rounding is easy to get wrong. */
const HARD_ROWS: Record<string, (i: number) => number> = {
  "zeros": () => 0,
  "halves between levels": (i) => i === 0 ? 127 : i - 31.5,
  "halves between levels of e4m3": (i) =>
    i === 0 ? 448 : [17, 19, 1.0625, 2 ** -10, 3 * 2 ** -10, 0.0146484375][i % 6]!,
  "the largest f32": (i) => (i % 2 === 0 ? 1 : -1) * 3.4028234663852886e38 / (1 + i),
  "numbers just above what is stored as zero": (i) => 2 ** -100 / (1 + i),
  "numbers too small for a scale": (i) => 1e-38 / (1 + i),
  "an infinite number": (i) => i === 9 ? -Infinity : i,
  "NaN": (i) => i === 9 ? NaN : i,
};

for (const kvType of ["q8", "fp8"] as const) {
  for (const [name, number] of Object.entries(HARD_ROWS)) {
    deviceTest(`append of ${name} as ${kvType} stores what the reference stores`, (device) => {
      const keys = Float32Array.from({ length: 3 * 64 }, (_, i) => i < 64 ? number(i) : Math.sin(i));
      const values = keys.toReversed();
      const shape = { ...SHAPE, kvType, headDim: 64, numKvHeads: 1, numQueryHeads: 1 };
      const paged = buildPaged(device, shape, [{ keys, values }], new Random(1));
      assertStored(paged, 0, "keys");
      assertStored(paged, 0, "values");
    });
  }
}
