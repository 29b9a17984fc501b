import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import { pageScores, type Scorer, SCORERS } from "../reference/page_score.ts";
import type { PageStatistics } from "../reference/page_statistics.ts";
import { joined, normals, queryNear } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { GRID, gridLengths } from "../support/grid.ts";
import { buildPaged, type Paged, type PagedShape, randomSequence } from "../support/paged.ts";
import { scoreRows, scoreTensor } from "../support/paged_ops.ts";
import { toleranceOf } from "../support/tolerance.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 32 };

/** The statistics of a page as the cache keeps them. */
function keptStatistics({ cache, shape }: Paged, page: number): PageStatistics[] {
  const [mean, variance, min, max, std] = (["mean", "var", "min", "max", "std"] as const)
    .map((field) => Array.from(cache.readPage(0, page, field))) as [number[], number[], number[], number[], number[]];
  return std.map((spread, head) => {
    const cut = (numbers: number[]): number[] => numbers.slice(head * shape.headDim, (head + 1) * shape.headDim);
    return { mean: cut(mean), variance: cut(variance), min: cut(min), max: cut(max), std: spread };
  });
}

/** Scores of the device against those of the oracle from the same statistics. */
function assertScores(paged: Paged, q: Float32Array<ArrayBuffer>, scorer: Scorer, lambda?: number): void {
  const { shape, tables } = paged;
  const rows = scoreRows(paged, scoreTensor(paged, q, scorer, lambda));
  const width = shape.numQueryHeads * shape.headDim;
  tables.forEach((table, b) => {
    const pages = table.map((page) => keptStatistics(paged, page));
    const wanted = pageScores(q.subarray(b * width, (b + 1) * width), pages, shape, scorer, lambda);
    const tolerance = toleranceOf({ operation: "scorePages" }, shape.dtype);
    wanted.forEach((row, head) => assertNumbersClose(rows[b * shape.numKvHeads + head]!, row, [row.length], tolerance));
  });
}

for (const gridCase of GRID) {
  deviceTest(`scorePages in ${gridCase.name}`, (device) => {
    const { shape } = gridCase;
    const random = new Random(gridCase.seed);
    const parts = gridLengths(gridCase).map((tokens) => randomSequence(random, shape, tokens));
    const paged = buildPaged(device, shape, parts, random);
    const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
    for (const scorer of SCORERS) assertScores(paged, q, scorer);
  });
}

for (const scorer of ["unique", "diag"] as const) {
  for (const lambda of [0, 0.25, 3, -1]) {
    deviceTest(`scorePages with ${scorer} takes a lambda of ${lambda}`, (device) => {
      const random = new Random(1);
      const part = randomSequence(random, SHAPE, 50);
      assertScores(buildPaged(device, SHAPE, [part], random), queryNear(random, part.keys, SHAPE), scorer, lambda);
    });
  }
}

for (const tokens of [1, 8, 9, 511 * 8, 512 * 8, 1100 * 8 + 3]) {
  deviceTest(`scorePages of a sequence of ${tokens} tokens`, (device) => {
    const shape = { ...SHAPE, numQueryHeads: 2, numKvHeads: 1, headDim: 16 };
    const random = new Random(tokens);
    const part = randomSequence(random, shape, tokens);
    assertScores(buildPaged(device, shape, [part], random), queryNear(random, part.keys, shape), "unique");
  });
}

deviceTest("scorePages writes nothing past the last page of a sequence", (device) => {
  const random = new Random(2);
  const parts = [9, 40].map((tokens) => randomSequence(random, SHAPE, tokens));
  const paged = buildPaged(device, SHAPE, parts, random);
  const scores = scoreTensor(paged, normals(random, 2 * 6 * 32)).readFloats();
  const untouched = Array.from(scores).map((score, i) => score === Infinity ? i % 6 : -1).filter((page) => page >= 0);
  assertEquals(untouched, [2, 3, 4, 5, 2, 3, 4, 5, 5, 5]); // 2 and 5 of 6 pages, 2 KV heads each
});

for (const scorer of SCORERS) {
  deviceTest(`scorePages with ${scorer} gives NaN for the page of a NaN key and for no other`, (device) => {
    const random = new Random(3);
    const part = randomSequence(random, SHAPE, 40);
    part.keys[(19 * 2 + 1) * 32 + 7] = NaN;
    const paged = buildPaged(device, SHAPE, [part], random);
    const rows = scoreRows(paged, scoreTensor(paged, normals(random, 6 * 32), scorer));
    assertEquals(rows.map((row) => Array.from(row, Number.isNaN)), [
      [false, false, false, false, false],
      [false, false, true, false, false],
    ]);
  });

  for (const head of [0, 1, 2]) {
    deviceTest(`scorePages with ${scorer} lets a NaN in query head ${head} of a group win`, (device) => {
      const random = new Random(4);
      const part = randomSequence(random, SHAPE, 20);
      const paged = buildPaged(device, SHAPE, [part], random);
      const q = normals(random, 6 * 32);
      q[head * 32 + 9] = NaN;
      const rows = scoreRows(paged, scoreTensor(paged, q, scorer));
      assertEquals(rows.map((row) => Array.from(row, Number.isNaN)), [[true, true, true], [false, false, false]]);
    });
  }
}

for (const scorer of SCORERS) {
  deviceTest(`scorePages with ${scorer} gives equal scores to pages of equal keys, the last one short`, (device) => {
    const random = new Random(5);
    const key = normals(random, 64);
    const keys = Float32Array.from({ length: 35 * 64 }, (_, i) => key[i % 64]!);
    const paged = buildPaged(device, SHAPE, [{ keys, values: keys }], random);
    for (const row of scoreRows(paged, scoreTensor(paged, normals(random, 6 * 32), scorer))) {
      assertEquals(new Set(row).size, 1);
    }
  });
}
