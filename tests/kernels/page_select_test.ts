import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { selectPages } from "../reference/page_select.ts";
import { integerBelow, normals } from "../support/cases.ts";
import { assertIndexSetsEqual } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { cacheShape, type PagedShape } from "../support/paged.ts";
import { selectionRows, type SelectOptions } from "../support/paged_ops.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 2, numKvHeads: 2, headDim: 16 };
const HEADS = SHAPE.numKvHeads;

interface Row {
  scores: Float32Array<ArrayBuffer>;
  tokens: number;
}

/** Rows `[B * Hk]` of scores on the device, with infinity past each row's end. */
function selectRows(device: Device, rows: Row[], options: SelectOptions): number[][] {
  const batch = rows.length / HEADS;
  const maxPages = Math.max(...rows.map((row) => row.scores.length)) + 1;
  const cache = KvCache.create(device, cacheShape(SHAPE, { maxPagesPerSequence: maxPages, maxSequences: batch }));
  const padded = new Float32Array(rows.length * maxPages).fill(Infinity);
  rows.forEach((row, index) => padded.set(row.scores, index * maxPages));
  const lengths = Int32Array.from({ length: batch }, (_, b) => rows[b * HEADS]!.tokens);
  const selection = {
    selected: device.createTensor("i32", [batch, HEADS, options.k]),
    counts: device.createTensor("i32", [batch, HEADS]),
  };
  const scores = device.upload(padded, [batch, HEADS, maxPages]);
  cache.selectPages(scores, device.upload(lengths, [batch]), selection, options);
  return selectionRows(selection);
}

/** Both KV heads of a batch of one get the same scores; the device's pages against the oracle's. */
function assertSelection(device: Device, scores: Float32Array<ArrayBuffer>, options: SelectOptions): void {
  const rows = Array.from({ length: HEADS }, () => ({ scores, tokens: scores.length * 8 }));
  const wanted = selectPages(scores, options.k, options.sinkPages ?? 1, options.recentPages ?? 2);
  assertIndexSetsEqual(selectRows(device, rows, options), rows.map(() => wanted));
}

/** Kinds of scores, each a function of the number of pages. */
const SCORES: Record<string, (pages: number) => Float32Array<ArrayBuffer>> = {
  "random scores": (pages) => normals(new Random(pages), pages, 5),
  "scores of three values": (pages) => {
    const random = new Random(pages);
    return Float32Array.from({ length: pages }, () => integerBelow(random, 3) - 1);
  },
  "equal scores": (pages) => new Float32Array(pages).fill(0.25),
  "rising scores": (pages) => Float32Array.from({ length: pages }, (_, i) => i - 20),
  "falling scores": (pages) => Float32Array.from({ length: pages }, (_, i) => 20 - i),
  "NaN only": (pages) => new Float32Array(pages).fill(NaN),
  "-Infinity only": (pages) => new Float32Array(pages).fill(-Infinity),
  "Infinity only": (pages) => new Float32Array(pages).fill(Infinity),
  "NaN among numbers": (pages) => normals(new Random(pages), pages).map((x, i) => i % 3 === 0 ? NaN : x),
  "NaN, infinities and numbers": (pages) => {
    const special = [NaN, -Infinity, Infinity, 1, -1, 0, -0, 1e-45, -1e-45, 3e38, -3e38];
    const random = new Random(pages);
    return Float32Array.from({ length: pages }, () => special[integerBelow(random, special.length)]!);
  },
  "zeros of both signs": (pages) => Float32Array.from({ length: pages }, (_, i) => i % 2 === 0 ? -0 : 0),
  "scores one bit apart": (pages) => {
    const random = new Random(pages);
    return new Float32Array(Uint32Array.from({ length: pages }, () => 0x3f800000 + integerBelow(random, pages)).buffer);
  },
};
const PAGES = [1, 2, 3, 7, 8, 9, 64, 65, 257, 1000];

for (const [kind, scores] of Object.entries(SCORES)) {
  for (const k of [1, 2, 3, 4, 8, 63]) {
    deviceTest(`selectPages takes ${k} of any number of pages with ${kind}`, (device) => {
      for (const pages of PAGES) assertSelection(device, scores(pages), { k });
    });
  }
}

/** k, sink, recent: each forced kind alone, none, both past k, both past the number of pages. */
const FORCED = [
  [4, 0, 0],
  [4, 0, 1],
  [4, 1, 0],
  [4, 4, 0],
  [4, 0, 4],
  [4, 3, 3],
  [4, 9, 0],
  [4, 0, 9],
  [4, 9, 9],
  [1, 1, 1],
  [1, 1, 0],
  [2, 1, 1],
  [9, 5, 5],
  [9, 2_000_000_000, 2_000_000_000],
] as const;

for (const [k, sinkPages, recentPages] of FORCED) {
  deviceTest(`selectPages forces ${sinkPages} sink and ${recentPages} recent pages into ${k} places`, (device) => {
    for (const pages of [4, 5, 10, 70]) {
      assertSelection(device, normals(new Random(pages), pages), { k, sinkPages, recentPages });
    }
  });
}

for (const [name, k] of [["k equal to the pages", 10], ["k one less", 9], ["k far above", 100]] as const) {
  deviceTest(`selectPages with ${name} agrees with the oracle`, (device) => {
    assertSelection(device, normals(new Random(1), 10), { k });
  });
}

for (const kind of ["random scores", "scores of three values", "scores one bit apart", "rising scores"]) {
  deviceTest(
    `selectPages agrees with the oracle around the pages that several blocks share, with ${kind}`,
    (device) => {
      for (const pages of [8192, 8193, 8200, 20_001]) {
        for (const k of [3, 64, pages - 1]) assertSelection(device, SCORES[kind]!(pages), { k });
      }
    },
  );
}

for (const kind of ["random scores", "scores of three values", "equal scores", "NaN, infinities and numbers"]) {
  for (const k of [64, 4096]) {
    deviceTest(`selectPages takes ${k} of 131072 pages with ${kind}`, (device) => {
      assertSelection(device, SCORES[kind]!(131_072), { k });
    });
  }
}

deviceTest("selectPages finds the two largest wherever they stand, past every block of a long row", (device) => {
  for (const place of [65_535, 65_536, 65_537, 99_999]) {
    const scores = new Float32Array(100_000);
    scores[place] = 1;
    scores[3] = 2;
    assertSelection(device, scores, { k: 2, sinkPages: 0, recentPages: 0 });
  }
});

deviceTest("selectPages gives each row of a batch its own pages, whatever the others' lengths", (device) => {
  const random = new Random(6);
  const rows = [3, 65, 1, 600].flatMap((pages) =>
    Array.from({ length: HEADS }, () => ({ scores: normals(random, pages), tokens: pages * 8 - 7 }))
  );
  const wanted = rows.map(({ scores }) => selectPages(scores, 9, 1, 2));
  assertIndexSetsEqual(selectRows(device, rows, { k: 9 }), wanted);
});
