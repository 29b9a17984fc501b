/** Append and sparse attention of decode steps in one call against the two calls. */
import { assertEquals } from "@std/assert";
import type { ScoreOptions, SelectionWork, SelectOptions } from "../../ffi/cache_options.ts";
import type { Device } from "../../ffi/device.ts";
import type { KvCache } from "../../ffi/kv_cache.ts";
import {
  type AppendedShape,
  assertSameCaches,
  pagesOf,
  runAll,
  type Step,
  stepAt,
  type StepOptions,
  twoCaches,
} from "../support/appended.ts";
import { assertIndexSetsEqual, assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { selectionRows } from "../support/paged_ops.ts";

const SHAPE: AppendedShape = {
  ...{ dtype: "bf16", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 64 },
  mostTokens: 4096,
};

interface Case extends StepOptions, ScoreOptions, SelectOptions {
  shape?: Partial<AppendedShape>;
  /** Tokens of each sequence in the cache before. */
  before: number[];
  /** Most pages to select. */
  k?: number;
}

const CASES: Record<string, Case> = {
  "the first token": { before: [0] },
  "fewer pages than the budget": { before: [60], normWeights: "bf16" },
  "the last token of as many pages as the budget": { before: [127] },
  "a page beyond the budget, which begins with the token": { before: [128] },
  "a token in the middle of a page": { before: [700], normWeights: "bf16" },
  "the last token of a page": { before: [703], normWeights: "f32" },
  "a page that begins with the token": { before: [704] },
  "a group of pages that begins with the token": { before: [1024] },
  "a long sequence": { before: [4001], k: 64, normWeights: "bf16" },
  "f16 pages": { shape: { dtype: "f16" }, before: [333] },
  "f16 pages and heads of 128": { shape: { dtype: "f16", headDim: 128 }, before: [2005], k: 64, normWeights: "f16" },
  "heads of 128": { shape: { headDim: 128 }, before: [2005], k: 64, normWeights: "bf16" },
  "heads of 96": { shape: { headDim: 96 }, before: [333] },
  "heads of 80": { shape: { headDim: 80 }, before: [333] },
  "one query head per KV head": { shape: { numQueryHeads: 2 }, before: [333] },
  "16 query heads per KV head": { shape: { numQueryHeads: 16, numKvHeads: 1 }, before: [333] },
  "eight KV heads": { shape: { numQueryHeads: 16, numKvHeads: 8 }, before: [1500], k: 64 },
  "a rotation of 32 dimensions": { before: [333], rotaryDim: 32 },
  "pages of 16 tokens": { shape: { pageSize: 16 }, before: [500] },
  "f32 pages": { shape: { dtype: "f32" }, before: [333] },
  "pages in 8 bits": { shape: { kvType: "q8" }, before: [333] },
  "scores by means": { before: [333], scorer: "mean" },
  "scores by variances": { before: [333], scorer: "diag" },
  "scores by minima and maxima": { before: [333], scorer: "quest" },
  "a budget of one page": { before: [333], k: 1 },
  "many forced pages": { before: [333], sinkPages: 5, recentPages: 7 },
  "sequences of different lengths": { before: [333, 704, 20, 0], normWeights: "bf16" },
};

/** Only the token just appended makes its page score high. */
const SCORED_WITH_THE_TOKEN: Record<string, number> = {
  "in the middle of its page": 1213,
  "at the end of its page": 1215,
  "at the start of its page": 1216,
  "at the start of its group of pages": 1280,
};

interface SparseStep extends Step, SelectionWork {}

function sparseStepAt(
  device: Device,
  shape: AppendedShape,
  positions: number[],
  k: number,
  given: StepOptions = {},
): SparseStep {
  const rows = [positions.length, shape.numKvHeads];
  const work: SelectionWork = {
    scores: device.createTensor("f32", [...rows, pagesOf(shape).length]),
    selection: { selected: device.createTensor("i32", [...rows, k]), counts: device.createTensor("i32", rows) },
  };
  return { ...stepAt(device, shape, positions, given), ...work };
}

function inOne(cache: KvCache, step: SparseStep, options: ScoreOptions & SelectOptions): void {
  cache.appendSparseAttention(0, step.rotation, step, step.sequences, step, step.out, options);
}

function inParts(cache: KvCache, step: SparseStep, options: ScoreOptions & SelectOptions): void {
  const { rotation, q, k, v, slots, sequences, out } = step;
  cache.appendRotated(0, rotation, q, k, v, slots);
  cache.attendSparse(0, q, sequences, step, out, options);
}

function assertSameSteps(found: SparseStep, wanted: SparseStep): void {
  assertIndexSetsEqual(selectionRows(found.selection), selectionRows(wanted.selection));
  assertNumbersClose(found.out.readFloats(), wanted.out.readFloats(), found.out.shape);
}

for (const groupPages of [0, 8] as const) {
  const groups = groupPages === 0 ? "" : " with groups of pages";

  for (const [name, given] of Object.entries(CASES)) {
    deviceTest(`appendSparseAttention gives what append and attention give for ${name}${groups}`, (device) => {
      const shape = { ...SHAPE, ...given.shape };
      const { before, k = 16 } = given;
      const [joined, parted] = twoCaches(device, shape, groupPages, before);
      const make = (): SparseStep => sparseStepAt(device, shape, before, k, given);
      const one = make(), other = make();
      inOne(joined, one, given);
      inParts(parted, other, given);
      assertSameSteps(one, other);
      assertSameCaches(joined, parted, shape, before.map((tokens) => tokens + 1));
    });
  }

  for (const [name, before] of Object.entries(SCORED_WITH_THE_TOKEN)) {
    deviceTest(`appendSparseAttention scores pages with the token ${name}${groups}`, (device) => {
      const [joined, parted] = twoCaches(device, SHAPE, groupPages, [before]);
      const make = (): SparseStep => sparseStepAt(device, SHAPE, [before], 16, { keysLikeQueries: true });
      const one = make(), other = make();
      inOne(joined, one, { recentPages: 0 });
      inParts(parted, other, { recentPages: 0 });
      assertSameSteps(one, other);
      const newest = Math.floor(before / SHAPE.pageSize);
      assertEquals(selectionRows(one.selection).map((pages) => pages.at(-1)), [newest, newest]);
    });
  }
}

for (const recorded of [false, true]) {
  for (const recentPages of [0, 2]) {
    const how = recorded ? "in one recording" : "without a copy between them";
    deviceTest(
      `appendSparseAttention of tokens that follow each other ${how}, ${recentPages} recent pages`,
      (device) => {
        if (recorded && !device.records) return;
        const [joined, parted] = twoCaches(device, SHAPE, 8, [1020]);
        const make = (): SparseStep[] =>
          Array.from(
            { length: 12 },
            (_, i) => sparseStepAt(device, SHAPE, [1020 + i], 16, { keysLikeQueries: i % 2 === 0 }),
          );
        const steps = make(), others = make();
        runAll(device, recorded, () => {
          for (const one of steps) inOne(joined, one, { recentPages });
        });
        for (const other of others) {
          inParts(parted, other, { recentPages });
          other.out.readFloats();
        }
        steps.forEach((one, i) => assertSameSteps(one, others[i]!));
        assertSameCaches(joined, parted, SHAPE, [1032]);
      },
    );
  }
}
