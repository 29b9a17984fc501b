/** Sparse prefill: the pages that tiles of a prompt choose, and attention over these. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import { NativeError } from "../../ffi/errors.ts";
import { SCORERS } from "../reference/page_score.ts";
import {
  choosePromptPages,
  type PromptOptions,
  promptScores,
  promptTiles,
  sparsePrefillAttention,
} from "../reference/prefill_choose.ts";
import { integerBelow, joined, normals, queryNear } from "../support/cases.ts";
import { assertIndexSetsEqual, assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { DEVICE_KIND, deviceTest } from "../support/device.ts";
import { GRID } from "../support/grid.ts";
import { appendAt, buildPaged, type Paged, type PagedShape, randomSequence, slotsOf } from "../support/paged.ts";
import { attendPrefill, attendPromptPages, choosePromptRows, uploadTileSelection } from "../support/paged_ops.ts";
import { toleranceOf } from "../support/tolerance.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 32 };
/**
 * Scores closer than this share of the larger one may change places: queries have 16 bits on CUDA, statistics those of the cache, and a share
 * is an exponential.
 */
function nearOf({ dtype }: PagedShape): number {
  return dtype === "f32" ? 2e-3 : DEVICE_KIND === "cuda" ? 0.25 : 0.1;
}
/** Of queries whose softmax is not so sharp that rounding moves it. */
const MILD = 0.2;

/** Queries `[T, Hq, d]` that each lean towards keys before them. */
function queriesOf(random: Random, paged: Paged, start: number, tokens: number): Float32Array<ArrayBuffer> {
  const width = paged.shape.numKvHeads * paged.shape.headDim;
  const { keys } = paged.stored[0]!;
  return joined(
    Array.from({ length: tokens }, (_, t) => queryNear(random, keys.slice(0, (start + t + 1) * width), paged.shape)),
  );
}

/** The device's rows against the oracle's: forced pages and numbers of pages agree, others only if they score nearly as much as the last. */
function assertChosen(paged: Paged, q: Float32Array<ArrayBuffer>, start: number, options: PromptOptions): void {
  const { shape, stored } = paged;
  const rows = choosePromptRows(paged, q, start, options);
  const wanted = choosePromptPages(q, stored[0]!.keys, shape, start, options);
  const scores = promptScores(q, stored[0]!.keys, shape, start, options);
  assertEquals(rows.map((row) => row.length), wanted.map((row) => row.length));
  wanted.forEach((row, index) => {
    const [found, asked] = [new Set(rows[index]), new Set(row)];
    const pages = scores[index]!.length;
    const { sinkPages = 1, recentPages = 2 } = options;
    const competing = row.filter((page) => page >= sinkPages && page < pages - recentPages);
    const cut = Math.min(...competing.map((page) => scores[index]![page]!));
    for (const page of found.symmetricDifference(asked)) {
      const score = scores[index]![page]!;
      const gap = Math.abs(score - cut) / Math.max(score, cut);
      assert(gap <= nearOf(shape), `${options.scorer}, row ${index}, page ${page} is ${gap} from the cut`);
    }
    assert(rows[index]!.every((page, i, all) => i === 0 || page > all[i - 1]!), `Row ${index} is not ascending`);
  });
}

for (const { name, shape, seed } of GRID) {
  deviceTest(`choosePromptPages takes the oracle's pages in ${name.replace(/, batch.*/, "")}`, (device) => {
    const random = new Random(seed);
    const [start, tokens] = [9 * shape.pageSize + 3, 2 * shape.pageSize];
    const paged = buildPaged(device, shape, [randomSequence(random, shape, start + tokens)], random);
    const q = queriesOf(random, paged, start, tokens);
    for (const scorer of SCORERS) {
      assertChosen(paged, q, start, { scorer, k: 5, tileTokens: shape.pageSize, recentPages: 1 });
    }
  });
}

/** First position, tokens, tokens per tile: chunks that begin and end inside of tiles, tiles that begin inside of pages. */
for (
  const [start, tokens, tileTokens] of [[0, 300, 128], [128, 256, 128], [200, 70, 64], [300, 1, 128], [77, 33, 20], [
    500,
    130,
    32,
  ]]
) {
  deviceTest(
    `choosePromptPages and attention over them for ${tokens} tokens from ${start} in tiles of ${tileTokens}`,
    (device) => {
      const random = new Random(start! + tokens!);
      const paged = buildPaged(device, SHAPE, [randomSequence(random, SHAPE, start! + tokens!)], random);
      const q = queriesOf(random, paged, start!, tokens!);
      const options = { scorer: "unique", k: 6, tileTokens: tileTokens! } as const;
      assertChosen(paged, q, start!, options);
      const rows = choosePromptRows(paged, q, start!, options);
      const { keys, values } = paged.stored[0]!;
      const mild = normals(random, q.length, MILD);
      const wanted = sparsePrefillAttention(mild, keys, values, SHAPE, start!, tileTokens!, rows);
      const out = attendPromptPages(paged, mild, start!, tileTokens!, rows);
      assertNumbersClose(out, wanted, [tokens!, SHAPE.numQueryHeads, SHAPE.headDim]);
    },
  );
}

for (const { name, shape, seed } of GRID) {
  deviceTest(
    `attendPrefillSparse reads the selected pages and no others in ${name.replace(/, batch.*/, "")}`,
    (device) => {
      const random = new Random(seed);
      const { pageSize, numKvHeads, headDim, numQueryHeads, kvType } = shape;
      const tileTokens = pageSize;
      const [start, tokens] = [3 * pageSize + 2, pageSize + 5];
      const paged = buildPaged(device, shape, [randomSequence(random, shape, start + tokens)], random);
      const q = normals(random, tokens * numQueryHeads * headDim, MILD);
      const rows = promptTiles(start, tokens, tileTokens).flatMap(({ first }) =>
        Array.from(
          { length: numKvHeads },
          () =>
            Array.from({ length: Math.floor(first / pageSize) }, (_, page) => page).filter(() =>
              integerBelow(random, 2) > 0
            ),
        )
      );
      const { keys, values } = paged.stored[0]!;
      const wanted = sparsePrefillAttention(q, keys, values, shape, start, tileTokens, rows);
      const tolerance = toleranceOf({ operation: "attendPrefill", headDim, kvType }, shape.dtype);
      assertNumbersClose(
        attendPromptPages(paged, q, start, tileTokens, rows),
        wanted,
        [tokens, numQueryHeads, headDim],
        tolerance,
      );
    },
  );
}

for (const dtype of ["f32", "bf16"] as const) {
  const shape = { ...SHAPE, dtype, headDim: 64 };

  deviceTest(`a budget of all pages gives the same attention as dense in ${dtype}`, (device) => {
    const random = new Random(5);
    const paged = buildPaged(device, shape, [randomSequence(random, shape, 400)], random);
    const q = normals(random, 200 * 4 * 64, MILD);
    const rows = choosePromptRows(paged, q, 200, { scorer: "unique", k: 64, tileTokens: 128 });
    assertEquals(rows.map((row) => row.length), [25, 25, 32, 32, 48, 48].slice(0, rows.length));
    const tolerance = toleranceOf({ operation: "attendPrefill", headDim: 64 }, dtype);
    assertNumbersClose(
      attendPromptPages(paged, q, 200, 128, rows),
      attendPrefill(paged, q, 200),
      [200, 4, 64],
      tolerance,
    );
  });

  deviceTest(`attendPrefillSparse in ${dtype} never reads what an earlier owner left in a page`, (device) => {
    const random = new Random(6);
    const first = randomSequence(random, shape, 96);
    for (const numbers of [first.keys, first.values]) numbers.fill(NaN);
    const second = randomSequence(random, shape, 67);
    const reused = buildPaged(device, shape, [first], random);
    appendAt(reused.cache, second, slotsOf(reused.tables[0]!, 8, 0, 67));
    const fresh = buildPaged(device, shape, [second], random);
    const q = normals(random, 27 * 4 * 64);
    const rows = [[0, 3], [1, 4]];
    assertSameBits(attendPromptPages(reused, q, 40, 128, rows), attendPromptPages(fresh, q, 40, 128, rows));
  });
}

deviceTest("choosePromptPages takes the page that a single sampled query of the tile looks for", (device) => {
  const random = new Random(7);
  const sequence = randomSequence(random, SHAPE, 640);
  const paged = buildPaged(device, SHAPE, [sequence], random);
  const q = normals(random, 128 * 4 * 32, 0.01);
  // Last token of the tile, first head of each KV head: towards the keys of page 20.
  for (const head of [0, 2]) {
    const at = (127 * 4 + head) * 32;
    for (let i = 0; i < 32; i++) q[at + i] = sequence.keys[(163 * 2 + head / 2) * 32 + i]!;
  }
  const rows = choosePromptRows(paged, q, 512, { scorer: "unique", k: 8, tileTokens: 128 });
  assertEquals(rows.length, 2);
  assertEquals(rows.every((row) => row.includes(0) && row.includes(62) && row.includes(63)), true);
  assertIndexSetsEqual(
    rows,
    choosePromptPages(q, paged.stored[0]!.keys, SHAPE, 512, { scorer: "unique", k: 8, tileTokens: 128 }),
  );
});

deviceTest("the counters say how many pages prompts scored, read and could have read", (device) => {
  const random = new Random(8);
  const paged = buildPaged(device, SHAPE, [randomSequence(random, SHAPE, 256)], random);
  const q = normals(random, 128 * 4 * 32);
  const rows = choosePromptRows(paged, q, 128, { scorer: "unique", k: 6, tileTokens: 64 });
  attendPromptPages(paged, q, 128, 64, rows);
  const { promptPagesScored, promptPagesAttended, promptPagesVisible } = paged.cache.counters();
  // Two KV heads; tiles behind 16 and 24 pages, of which 3 are forced; each has 8 pages of its own.
  assertEquals([promptPagesScored, promptPagesAttended, promptPagesVisible], [
    2 * (13 + 21),
    2 * 2 * (6 + 8),
    2 * (24 + 32),
  ]);
});

deviceTest("attendPrefillSparse refuses a page that is not before its tile", (device) => {
  const random = new Random(9);
  const paged = buildPaged(device, SHAPE, [randomSequence(random, SHAPE, 256)], random);
  const { selected, counts } = uploadTileSelection(paged, [[0, 16], [0, 1]], 1);
  const q = device.upload(normals(random, 64 * 4 * 32), [64, 4, 32]);
  const table = device.upload(Int32Array.from(paged.tables[0]!), [paged.tables[0]!.length]);
  const out = device.createTensor("f32", [64, 4, 32]);
  const call = (): void =>
    paged.cache.attendPrefillSparse(0, 128, q, table, { selected, counts }, out, { tileTokens: 64 });
  if (DEVICE_KIND === "cpu") {
    assertThrows(call, NativeError, "selected[1] is 16");
  } else {
    call();
    assertThrows(() => out.readFloats(), NativeError, "selected[1] is 16");
  }
});
