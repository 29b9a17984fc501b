/** The sparse attention of a decode step in one call against its parts. */
import { assert } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import { joined, queryNear } from "../support/cases.ts";
import { assertIndexSetsEqual, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { buildUnrounded, type PagedShape, randomSequence } from "../support/paged.ts";
import { attend, attendSparse, choose, scoreTensor, select, selectionRows } from "../support/paged_ops.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 8, numKvHeads: 2, headDim: 128 };

/** Least share of the pages of one level that two levels find. */
const LEAST_RECALL = 0.97;

interface Case {
  shape?: Partial<PagedShape>;
  lengths: number[];
  k?: number;
  sinkPages?: number;
  recentPages?: number;
}

/** Everything that changes which way the work is done, or where a row, a page or a block ends. */
const CASES: Record<string, Case> = {
  "heads of 64": { shape: { headDim: 64 }, lengths: [2000] },
  "heads of 96": { shape: { headDim: 96 }, lengths: [1500] },
  "heads of 128 and f16 pages": { shape: { dtype: "f16" }, lengths: [1500] },
  "heads of 256": { shape: { headDim: 256 }, lengths: [1500] },
  "heads of 80": { shape: { headDim: 80 }, lengths: [1500] },
  "f32 pages": { shape: { dtype: "f32", headDim: 32 }, lengths: [1500] },
  "one query head a KV head": { shape: { numQueryHeads: 2 }, lengths: [3000] },
  "eight query heads a KV head": { shape: { numQueryHeads: 16 }, lengths: [3000] },
  "sixteen query heads a KV head": { shape: { numQueryHeads: 32 }, lengths: [3000] },
  "one KV head": { shape: { numKvHeads: 1 }, lengths: [3000] },
  "pages of 16": { shape: { pageSize: 16 }, lengths: [4001], k: 32 },
  "pages of 64": { shape: { pageSize: 64, headDim: 64 }, lengths: [3001], k: 8 },
  "a long sequence": { shape: { headDim: 64, numQueryHeads: 2, numKvHeads: 1 }, lengths: [20_000] },
  "a longer sequence": { shape: { headDim: 64, numQueryHeads: 2, numKvHeads: 1 }, lengths: [40_001] },
  "a batch of different lengths": { lengths: [700, 1, 2050, 513] },
  "sequences beside one that is read whole": { lengths: [3000, 100, 512, 520] },
  "only sequences that are read whole": { lengths: [512, 9] },
  "a batch of many rows": {
    shape: { headDim: 64 },
    lengths: Array.from({ length: 20 }, (_, b) => 200 + 20 * b),
    k: 16,
  },
  "a budget of one page": { lengths: [700], k: 1 },
  "a budget of forced pages only": { lengths: [700], k: 3 },
  "a budget of four pages": { lengths: [700], k: 4 },
  "no forced pages": { lengths: [2000], sinkPages: 0, recentPages: 0 },
  "many forced pages": { lengths: [2000], sinkPages: 30, recentPages: 20 },
  "a budget of 1,024 tokens": { shape: { headDim: 64 }, lengths: [3000], k: 128 },
  "a large budget": { shape: { headDim: 64 }, lengths: [3000], k: 300 },
  "a budget of 4,800 tokens": { shape: { headDim: 64 }, lengths: [6000], k: 600 },
};

for (const [name, { shape: changes, lengths, k = 64, ...forced }] of Object.entries(CASES)) {
  deviceTest(`attendSparse gives the pages and the bits of its parts for ${name}`, (device) => {
    const shape = { ...SHAPE, ...changes };
    const random = new Random(lengths.length);
    const parts = lengths.map((tokens) => randomSequence(random, shape, tokens));
    const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
    const paged = buildUnrounded(device, shape, parts, random, { maxSequences: lengths.length });
    const selection = select(paged, scoreTensor(paged, q), { k, ...forced });
    const found = attendSparse(paged, q, { k, ...forced });
    assertIndexSetsEqual(selectionRows(found.selection), selectionRows(selection));
    assertSameBits(found.out, attend(paged, q, { selection }));
  });
}

for (const tokens of [70_000, 150_000, 270_000]) {
  deviceTest(
    `attendSparse over groups of pages takes what choosePages takes of ${tokens} tokens, and misses few`,
    (device) => {
      const shape: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 2, numKvHeads: 1, headDim: 64 };
      const random = new Random(3);
      // Whole groups of pages, so that none spans the jump from the end of a copy to the start of the next.
      const base = randomSequence(random, shape, 78 * 64);
      const grown = (numbers: Float32Array): Float32Array<ArrayBuffer> =>
        Float32Array.from(
          { length: tokens * 64 },
          (_, i) => numbers[i % numbers.length]! * (1 + Math.floor(i / numbers.length) / 50),
        );
      const sequence = { keys: grown(base.keys), values: grown(base.values) };
      const paged = buildUnrounded(device, shape, [sequence], random, { groupPages: 8 });
      const q = queryNear(random, base.keys, shape);
      const found = attendSparse(paged, q, { k: 64 });
      const rows = selectionRows(found.selection);
      assertIndexSetsEqual(rows, selectionRows(choose(paged, q, { k: 64 })));
      assertSameBits(found.out, attend(paged, q, { selection: found.selection }));
      const wanted = new Set(selectionRows(select(paged, scoreTensor(paged, q), { k: 64 }))[0]);
      assert(wanted.intersection(new Set(rows[0])).size >= LEAST_RECALL * 64);
    },
  );
}

for (const value of [0.25, NaN, -0]) {
  deviceTest(`attendSparse takes the lowest pages where all keys are ${value}`, (device) => {
    const random = new Random(1);
    const part = randomSequence(random, SHAPE, 1600);
    part.keys.fill(value);
    const paged = buildUnrounded(device, SHAPE, [part], random);
    const q = queryNear(random, part.keys.map(() => 1), SHAPE);
    const { selection } = attendSparse(paged, q, { k: 10 });
    const wanted = [...Array.from({ length: 8 }, (_, i) => i), 198, 199];
    assertIndexSetsEqual(selectionRows(selection), [wanted, wanted]);
  });
}

const TIED_KEYS = [0.5, 0.25, -0.5, 0.125, 0.375] as const;

for (const pages of [200, 900, 2000]) {
  deviceTest(`attendSparse takes the first of ${pages} pages that tie at the cut`, (device) => {
    const random = new Random(pages);
    const pageNumbers = SHAPE.pageSize * SHAPE.numKvHeads * SHAPE.headDim;
    const { values } = randomSequence(random, SHAPE, pages * SHAPE.pageSize);
    const keys = values.map((_, i) => TIED_KEYS[Math.floor(i / pageNumbers) * 7 % TIED_KEYS.length]!);
    const paged = buildUnrounded(device, SHAPE, [{ keys, values }], random);
    const q = queryNear(random, keys.map(() => 1), SHAPE);
    const selection = select(paged, scoreTensor(paged, q), { k: 64 });
    assertIndexSetsEqual(selectionRows(attendSparse(paged, q, { k: 64 }).selection), selectionRows(selection));
  });
}

/** So many KV heads that the CUDA build chooses by coarse copies, and attends to rows that are chosen while it still chooses for others. */
const WIDE: PagedShape = { ...SHAPE, numKvHeads: 40, numQueryHeads: 80, headDim: 64 };
const COARSE = { statistics: { variance: true, minMax: false, coarse: true } } as const;

/** What changes whether attention starts beside the choice, which blocks read a row, or whether a row is chosen for at all. */
const WIDE_CASES: Record<string, Case> = {
  "fewer rows than multiprocessors": { lengths: [1203] },
  "more rows than multiprocessors": { lengths: [700, 1203, 300, 900] },
  "rows of two blocks of query heads": { shape: { numQueryHeads: 480 }, lengths: [1203, 300, 400, 350] },
  "sequences beside one that is read whole": { lengths: [1203, 60, 9, 900] },
};

for (const [name, { shape: changes, lengths, k = 16 }] of Object.entries(WIDE_CASES)) {
  deviceTest(
    `attendSparse with coarse copies gives the pages and the bits of its parts, twice, for ${name}`,
    (device) => {
      const shape = { ...WIDE, ...changes };
      const random = new Random(lengths.length);
      const parts = lengths.map((tokens) => randomSequence(random, shape, tokens));
      const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
      const paged = buildUnrounded(device, shape, parts, random, { maxSequences: lengths.length, ...COARSE });
      const options = { scorer: "diag", k } as const;
      const selection = choose(paged, q, options);
      const out = attend(paged, q, { selection });
      for (let step = 0; step < 2; step++) {
        const found = attendSparse(paged, q, options);
        assertIndexSetsEqual(selectionRows(found.selection), selectionRows(selection));
        assertSameBits(found.out, out);
      }
    },
  );
}
