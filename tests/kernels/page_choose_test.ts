/** Choosing pages in one call against scoring and selecting them; with groups of pages or coarse copies scored first, how much that misses. */
import { assert, assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { SCORERS } from "../reference/page_score.ts";
import { driftingKeys, joined, normals, queryNear } from "../support/cases.ts";
import { assertIndexSetsEqual } from "../support/compare.ts";
import { DEVICE_KIND, deviceTest } from "../support/device.ts";
import { GRID, gridLengths } from "../support/grid.ts";
import {
  appendAt,
  buildPaged,
  buildUnrounded,
  type KeysAndValues,
  type Paged,
  type PagedShape,
  randomSequence,
  slotsOf,
} from "../support/paged.ts";
import {
  choose,
  type ChooseOptions,
  scoreTensor,
  select,
  selectionRows,
  type SelectOptions,
} from "../support/paged_ops.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 4, numKvHeads: 1, headDim: 64 };
const GROUPS = { groupPages: 8 } as const;
/** Least share of the one-level pages that two levels find. */
const LEAST_RECALL = 0.97;
/** So many KV heads that the CUDA build gives each a block of its own, which scores coarse copies first. */
const WIDE: PagedShape = { ...SHAPE, numKvHeads: 40, numQueryHeads: 80 };
const COARSE = { statistics: { variance: true, minMax: true, coarse: true } } as const;
/** Least share of the pages of exact scores that are found through coarse copies. */
const LEAST_COARSE_RECALL = 0.995;

function chosen(paged: Paged, q: Float32Array<ArrayBuffer>, options: ChooseOptions): number[][] {
  return selectionRows(choose(paged, q, options));
}

/** The same in two calls, which know of no groups. */
function scoreAndSelect(paged: Paged, q: Float32Array<ArrayBuffer>, options: ChooseOptions): number[][] {
  return selectionRows(select(paged, scoreTensor(paged, q, options.scorer, options.lambda), options));
}

/** Long sequences take longer to make than to choose from, so that tests share them. Choosing reads no values. */
const made = new Map<string, KeysAndValues>();

function sequenceOf(shape: PagedShape, tokens: number): KeysAndValues {
  const name = `${tokens} tokens, ${shape.numKvHeads} heads of ${shape.headDim}`;
  if (!made.has(name)) {
    const keys = driftingKeys(new Random(tokens), tokens, shape);
    made.set(name, { keys, values: keys });
  }
  return made.get(name)!;
}

/** Keys that stay around 0: neighbours resemble each other, tokens a few hundred apart do not. */
function wanderingSequence(random: Random, shape: PagedShape, tokens: number): KeysAndValues {
  const width = shape.numKvHeads * shape.headDim;
  const means = normals(random, tokens * width);
  const kept = 0.99;
  for (let i = width; i < means.length; i++) {
    means[i] = kept * means[i - width]! + Math.sqrt(1 - kept * kept) * means[i]!;
  }
  const keys = normals(random, tokens * width, 0.7).map((noise, i) => noise + means[i]!);
  return { keys, values: keys };
}

interface Built {
  paged: Paged;
  q: Float32Array<ArrayBuffer>;
}

function build(
  device: Device,
  changes: Partial<PagedShape>,
  lengths: readonly number[],
  overrides: Partial<CacheShape>,
): Built {
  const shape = { ...SHAPE, ...changes };
  const random = new Random(lengths[0]!);
  const parts = lengths.map((tokens) => sequenceOf(shape, tokens));
  const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
  return { paged: buildUnrounded(device, shape, parts, random, { maxSequences: parts.length, ...overrides }), q };
}

/** k ascending pages of the sequence, the forced ones among them; all pages where there are not more. */
function assertValid(
  paged: Paged,
  rows: readonly number[][],
  { k, sinkPages = 1, recentPages = 2 }: SelectOptions,
): void {
  const { tokens, shape } = paged;
  assertEquals(rows.length, tokens.length * shape.numKvHeads);
  rows.forEach((row, index) => {
    const pages = Math.ceil(tokens[Math.floor(index / shape.numKvHeads)]! / shape.pageSize);
    assertEquals(row.length, Math.min(k, pages));
    assert(
      row.every((page, i) => page >= 0 && page < pages && (i === 0 || page > row[i - 1]!)),
      `Row ${index}: [${row}]`,
    );
    const recent = Math.min(recentPages, k);
    const forced = [
      ...Array.from({ length: Math.min(recent, pages) }, (_, i) => pages - 1 - i),
      ...Array.from({ length: Math.min(sinkPages, k - recent, pages) }, (_, i) => i),
    ];
    assert(
      forced.every((page) => row.includes(page)),
      `Row ${index} lacks one of the forced pages [${forced}]: [${row}]`,
    );
  });
}

/** Share of the wanted pages that were found, over all rows that leave pages out. */
function recall(found: readonly number[][], wanted: readonly number[][]): number {
  const hits = wanted.map((row, index) => row.filter((page) => found[index]!.includes(page)).length);
  return hits.reduce((a, b) => a + b, 0) / wanted.flat().length;
}

for (const gridCase of GRID) {
  deviceTest(`choosePages without groups takes what scorePages and selectPages take in ${gridCase.name}`, (device) => {
    const { paged, q } = build(device, gridCase.shape, gridLengths(gridCase), {});
    for (const scorer of SCORERS) {
      const options = { scorer, k: 3, recentPages: 1 };
      assertIndexSetsEqual(chosen(paged, q, options), scoreAndSelect(paged, q, options));
    }
  });
}

/** Few pages: every group is among the best. */
const FEW: Record<string, { shape?: Partial<PagedShape>; lengths: number[]; k?: number }> = {
  "heads of 64": { lengths: [4003] },
  "heads of 96": { shape: { headDim: 96 }, lengths: [4003] },
  "heads of 128": { shape: { headDim: 128, numKvHeads: 2, numQueryHeads: 8 }, lengths: [4003] },
  "heads of 256": { shape: { headDim: 256 }, lengths: [1500] },
  "heads of 80": { shape: { headDim: 80 }, lengths: [1500] },
  "f16 pages": { shape: { dtype: "f16" }, lengths: [4003] },
  "f32 pages": { shape: { dtype: "f32" }, lengths: [4003] },
  "8 query heads a KV head": { shape: { numQueryHeads: 8 }, lengths: [4003] },
  "16 query heads a KV head": { shape: { numQueryHeads: 16 }, lengths: [4003] },
  "20 query heads a KV head": { shape: { numQueryHeads: 20 }, lengths: [4003] },
  "pages of 16": { shape: { pageSize: 16 }, lengths: [4003] },
  "pages of 64": { shape: { pageSize: 64 }, lengths: [9001] },
  "a batch of different lengths": { shape: { numKvHeads: 2, numQueryHeads: 8 }, lengths: [4003, 1, 520, 1025] },
  "a budget of one page": { lengths: [250], k: 1 },
  "a budget of four pages": { lengths: [250], k: 4 },
  "a budget of all pages": { lengths: [512] },
  "a budget of all pages but one": { lengths: [513] },
  "a budget far above": { lengths: [100], k: 500 },
};

for (const [name, { shape, lengths, k = 64 }] of Object.entries(FEW)) {
  deviceTest(`choosePages takes the pages of one level where groups leave none out, for ${name}`, (device) => {
    const { paged, q } = build(device, shape ?? {}, lengths, GROUPS);
    for (const scorer of SCORERS) {
      const found = chosen(paged, q, { scorer, k });
      assertValid(paged, found, { k });
      assertIndexSetsEqual(found, scoreAndSelect(paged, q, { scorer, k }));
    }
  });
}

for (const headDim of [64, 128]) {
  for (const numQueryHeads of [4, 8, 16]) {
    deviceTest(`choosePages of 20,000 tokens, ${numQueryHeads} heads of ${headDim}, misses few pages`, (device) => {
      const { paged, q } = build(device, { headDim, numQueryHeads }, [20_000], GROUPS);
      for (const scorer of SCORERS) {
        const found = chosen(paged, q, { scorer, k: 64 });
        const share = recall(found, scoreAndSelect(paged, q, { scorer, k: 64 }));
        assertValid(paged, found, { k: 64 });
        // These two are scored at one level.
        const least = scorer === "diag" || scorer === "quest" ? 1 : LEAST_RECALL;
        assert(share >= least, `${scorer} found ${share} of the pages, wanted at least ${least}`);
      }
    });
  }
}

deviceTest("choosePages misses few pages of a batch of different lengths", (device) => {
  const { paged, q } = build(device, { numKvHeads: 2, numQueryHeads: 8 }, [12_000, 1, 700, 6001], GROUPS);
  const found = chosen(paged, q, { k: 64 });
  assertValid(paged, found, { k: 64 });
  const share = recall(found, scoreAndSelect(paged, q, { k: 64 }));
  assert(share >= LEAST_RECALL, `found ${share} of the pages`);
});

deviceTest("choosePages of 160,000 tokens, in a table for more, misses few pages", (device) => {
  const { paged, q } = build(device, {}, [160_000], { ...GROUPS, maxPagesPerSequence: 20_800 });
  const found = chosen(paged, q, { k: 64 });
  assertValid(paged, found, { k: 64 });
  const share = recall(found, scoreAndSelect(paged, q, { k: 64 }));
  assert(share >= LEAST_RECALL, `found ${share} of the pages`);
});

deviceTest("choosePages misses few pages of keys that stay around their mean", (device) => {
  const shape = { ...SHAPE, numKvHeads: 4, numQueryHeads: 16, headDim: 128 };
  const random = new Random(5);
  const part = wanderingSequence(random, shape, 8000);
  const paged = buildUnrounded(device, shape, [part], random, GROUPS);
  const q = queryNear(random, part.keys, shape);
  const found = chosen(paged, q, { k: 32 });
  assertValid(paged, found, { k: 32 });
  const share = recall(found, scoreAndSelect(paged, q, { k: 32 }));
  assert(share >= LEAST_RECALL, `found ${share} of the pages`);
});

/** A budget of 8 pages: copies are scored first from 64 pages on. */
const WIDE_CASES: Record<string, { shape?: Partial<PagedShape>; lengths: number[] }> = {
  "heads of 64": { lengths: [1203] },
  "heads of 96": { shape: { headDim: 96 }, lengths: [1203] },
  "heads of 128": { shape: { headDim: 128 }, lengths: [1203] },
  "heads of 256": { shape: { headDim: 256 }, lengths: [603] },
  "f16 pages": { shape: { dtype: "f16" }, lengths: [1203] },
  "q8 pages": { shape: { kvType: "q8" }, lengths: [1203] },
  "one query head a KV head": { shape: { numQueryHeads: 40 }, lengths: [1203] },
  "8 query heads a KV head": { shape: { numQueryHeads: 320 }, lengths: [1203] },
  "12 query heads a KV head": { shape: { numQueryHeads: 480 }, lengths: [1203] },
  "a batch of different lengths": { lengths: [1203, 1, 60, 300, 64, 1000, 17] },
};

for (const [name, { shape, lengths }] of Object.entries(WIDE_CASES)) {
  deviceTest(`choosePages with coarse copies misses few pages of ${name}`, (device) => {
    const { paged, q } = build(device, { ...WIDE, ...shape }, lengths, COARSE);
    for (const scorer of SCORERS) {
      const found = chosen(paged, q, { scorer, k: 8 });
      assertValid(paged, found, { k: 8 });
      const share = recall(found, scoreAndSelect(paged, q, { scorer, k: 8 }));
      assert(share >= LEAST_COARSE_RECALL, `${scorer} found ${share} of the pages`);
    }
  });
}

deviceTest("choosePages scores coarse copies on CUDA for every scorer but quest, by the counters", (device) => {
  const { paged, q } = build(device, WIDE, [1203], COARSE);
  const scored = SCORERS.map((scorer) => {
    const before = paged.cache.counters().copiesScored;
    chosen(paged, q, { scorer, k: 8 });
    return paged.cache.counters().copiesScored > before;
  });
  assertEquals(scored, SCORERS.map((scorer) => DEVICE_KIND === "cuda" && scorer !== "quest"));
});

deviceTest("choosePages with coarse copies misses few pages of a long sequence", (device) => {
  const { paged, q } = build(device, { ...WIDE, numKvHeads: 34, numQueryHeads: 34 }, [20_003], COARSE);
  const found = chosen(paged, q, { scorer: "diag", k: 64 });
  assertValid(paged, found, { k: 64 });
  const share = recall(found, scoreAndSelect(paged, q, { scorer: "diag", k: 64 }));
  assert(share >= LEAST_COARSE_RECALL, `found ${share} of the pages`);
});

deviceTest("choosePages with coarse copies takes the lowest pages where all keys are equal", (device) => {
  const random = new Random(1);
  const key = normals(random, WIDE.headDim);
  const keys = Float32Array.from({ length: 1200 * 40 * WIDE.headDim }, (_, i) => key[i % WIDE.headDim]!);
  const paged = buildUnrounded(device, WIDE, [{ keys, values: keys }], random, COARSE);
  for (const scorer of SCORERS) {
    const found = chosen(paged, normals(random, 80 * 64), { scorer, k: 8 });
    assertIndexSetsEqual(found, Array.from({ length: 40 }, () => [0, 1, 2, 3, 4, 5, 148, 149]));
  }
});

deviceTest("choosePages with coarse copies scores pages exactly whose keys are not finite", (device) => {
  const random = new Random(4);
  const part = randomSequence(random, WIDE, 1200);
  const width = WIDE.numKvHeads * WIDE.headDim;
  part.keys.fill(Infinity, 400 * width, 400 * width + 1);
  part.keys.fill(NaN, 800 * width, 800 * width + 1);
  const paged = buildUnrounded(device, WIDE, [part], random, COARSE);
  const q = normals(random, 80 * 64).map(Math.abs);
  const options = { scorer: "mean", k: 8 } as const;
  assertIndexSetsEqual(chosen(paged, q, options).slice(0, 1), scoreAndSelect(paged, q, options).slice(0, 1));
});

deviceTest("choosePages with coarse copies after a truncation chooses as in a cache that never held more", (device) => {
  const random = new Random(6);
  const whole = randomSequence(random, WIDE, 1200);
  const width = WIDE.numKvHeads * WIDE.headDim;
  const [kept, direction] = [1003, normals(random, width)];
  const keys = whole.keys.map((key, i) => {
    const token = Math.floor(i / width);
    return token < 1000 ? 0.01 * key : direction[i % width]! * (token < kept ? 1 : -50) + 0.01 * key;
  });
  const paged = buildUnrounded(device, WIDE, [{ ...whole, keys }], random, COARSE);
  paged.cache.renewPage(paged.tables[0]![125]!, 3);
  paged.sequences.lengths.write(Int32Array.of(kept));
  const q = Float32Array.from({ length: 2 * width }, (_, i) => direction[Math.floor(i / 128) * 64 + i % 64]!);
  const found = chosen({ ...paged, tokens: [kept] }, q, { scorer: "diag", k: 4, sinkPages: 0, recentPages: 0 });
  assert(found.every((row) => row.includes(125)), "The page that the cut shortened has the best keys");
});

const FORCED: SelectOptions[] = [
  { k: 1 },
  { k: 2 },
  { k: 3 },
  { k: 4 },
  { k: 64, sinkPages: 0, recentPages: 0 },
  { k: 64, sinkPages: 30, recentPages: 20 },
  { k: 64, sinkPages: 64, recentPages: 64 },
];

for (const options of FORCED) {
  const { k, sinkPages = 1, recentPages = 2 } = options;
  deviceTest(
    `choosePages of a long sequence forces ${sinkPages} sink and ${recentPages} recent pages into ${k}`,
    (device) => {
      const { paged, q } = build(device, {}, [10_003], GROUPS);
      assertValid(paged, chosen(paged, q, options), options);
      const wide = build(device, WIDE, [1203], COARSE);
      const scored = { scorer: "diag", ...options } as const;
      assertValid(wide.paged, chosen(wide.paged, wide.q, scored), scored);
    },
  );
}

for (const tokens of [700, 10_003]) {
  for (const groups of [false, true]) {
    const kind = groups ? "with" : "without";
    deviceTest(`choosePages ${kind} groups takes the lowest of ${tokens} tokens with equal keys`, (device) => {
      const random = new Random(1);
      const key = normals(random, SHAPE.headDim);
      const keys = Float32Array.from({ length: tokens * SHAPE.headDim }, (_, i) => key[i % SHAPE.headDim]!);
      const paged = buildUnrounded(device, SHAPE, [{ keys, values: keys }], random, groups ? GROUPS : {});
      const last = Math.ceil(tokens / 8) - 1;
      for (const scorer of SCORERS) {
        const found = chosen(paged, normals(random, 4 * 64), { scorer, k: 20 });
        assertIndexSetsEqual(found, [[...Array.from({ length: 18 }, (_, i) => i), last - 1, last]]);
      }
    });
  }
}

/** Of 16 groups the last one, part full, has the best pages; what a cut takes off it would give it the lowest score of all. */
const KEPT_TOKENS = 1003;
const GROUP_TOKENS = 64;

function tailedSequence(random: Random, direction: Float32Array): KeysAndValues {
  const part = randomSequence(random, SHAPE, 16 * GROUP_TOKENS);
  const first = 15 * GROUP_TOKENS;
  const keys = part.keys.map((key, i) => {
    const token = Math.floor(i / SHAPE.headDim);
    if (token < first) return 0.01 * key;
    return direction[i % SHAPE.headDim]! * (token < KEPT_TOKENS ? 1 : -50) + 0.01 * key;
  });
  return { keys, values: part.values };
}

function firstTokens({ keys, values }: KeysAndValues, tokens: number): KeysAndValues {
  return { keys: keys.slice(0, tokens * SHAPE.headDim), values: values.slice(0, tokens * SHAPE.headDim) };
}

deviceTest("choosePages with recent pages takes the best page of the newest group, which scores lowest", (device) => {
  const random = new Random(4);
  const direction = normals(random, SHAPE.headDim);
  const first = 15 * GROUP_TOKENS, bestPage = first / SHAPE.pageSize;
  const part = randomSequence(random, SHAPE, 16 * GROUP_TOKENS);
  const keys = part.keys.map((key, i) => {
    const token = Math.floor(i / SHAPE.headDim);
    const size = token < first ? 1 : token < first + SHAPE.pageSize ? 2 : -3;
    return direction[i % SHAPE.headDim]! * size + 0.01 * key;
  });
  const q = joined(Array.from({ length: SHAPE.numQueryHeads }, () => direction));
  const paged = buildPaged(device, SHAPE, [{ keys, values: part.values }], random, GROUPS);
  const [found] = chosen(paged, q, { k: 4, sinkPages: 0, recentPages: 1 });
  assertEquals(found!.slice(2), [bestPage, bestPage + 7]);
});

/** No forced pages: the last ones must win by their keys. */
const CUT: ChooseOptions = { k: 4, sinkPages: 0, recentPages: 0 };

deviceTest("choosePages after a truncation chooses as in a cache that never held more", (device) => {
  const random = new Random(2);
  const direction = normals(random, SHAPE.headDim);
  const whole = tailedSequence(random, direction);
  const q = joined(Array.from({ length: SHAPE.numQueryHeads }, () => direction));
  const paged = buildPaged(device, SHAPE, [whole], random, GROUPS);
  const lastPage = Math.floor(KEPT_TOKENS / 8);
  paged.cache.renewPage(paged.tables[0]![lastPage]!, KEPT_TOKENS % 8);
  paged.sequences.lengths.write(Int32Array.of(KEPT_TOKENS));
  const fresh = buildPaged(device, SHAPE, [firstTokens(whole, KEPT_TOKENS)], random, GROUPS);
  const found = chosen({ ...paged, tokens: [KEPT_TOKENS] }, q, CUT);
  assert(found[0]!.every((page) => page >= 15 * 8), `Not the pages of the last group: [${found[0]}]`);
  assertIndexSetsEqual(found, chosen(fresh, q, CUT));
});

deviceTest(
  "choosePages after a truncation to a page border and one more token chooses as in a fresh cache",
  (device) => {
    const random = new Random(3);
    const direction = normals(random, SHAPE.headDim);
    const whole = tailedSequence(random, direction);
    const q = joined(Array.from({ length: SHAPE.numQueryHeads }, () => direction));
    const paged = buildPaged(device, SHAPE, [whole], random, GROUPS);
    const tokens = 1001;
    const one = { keys: direction.slice(), values: direction.slice() };
    appendAt(paged.cache, one, slotsOf(paged.tables[0]!, SHAPE.pageSize, tokens - 1, 1));
    paged.sequences.lengths.write(Int32Array.of(tokens));
    const kept = firstTokens(whole, tokens - 1);
    const longer = { keys: joined([kept.keys, one.keys]), values: joined([kept.values, one.values]) };
    const fresh = buildPaged(device, SHAPE, [longer], random, GROUPS);
    const found = chosen({ ...paged, tokens: [tokens] }, q, CUT);
    assert(found[0]!.every((page) => page >= 15 * 8), `Not the pages of the last group: [${found[0]}]`);
    assertIndexSetsEqual(found, chosen(fresh, q, CUT));
  },
);
