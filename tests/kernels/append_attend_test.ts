/** Append and attention of decode steps in one call against the two calls: the same bits, but where sums come in another order. */
import type { KvCache } from "../../ffi/kv_cache.ts";
import {
  type AppendedShape,
  assertSameCaches,
  runAll,
  type Step,
  stepAt,
  type StepOptions,
  twoCaches,
} from "../support/appended.ts";
import { assertNumbersClose, assertSameBits } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";

const SHAPE: AppendedShape = {
  ...{ dtype: "bf16", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 64 },
  mostTokens: 768,
};

interface Case extends StepOptions {
  shape?: Partial<AppendedShape>;
  /** Tokens in the cache before. */
  before: number;
  window?: number;
  /** Splits of so many tokens that a GPU's warps share them out otherwise in the joined call. */
  longSplits?: boolean;
}

const CASES: Record<string, Case> = {
  "the first token": { before: 0 },
  "a token in the middle of a page": { before: 12, normWeights: "bf16" },
  "the last token of a page": { before: 15 },
  "the first token of a page": { before: 16, normWeights: "f32" },
  "a sequence of several splits": { before: 700, normWeights: "bf16", longSplits: true },
  "a sequence that ends with a split": { before: 511 },
  "f16 pages": { shape: { dtype: "f16" }, before: 133 },
  "heads of 128": { shape: { headDim: 128 }, before: 300, normWeights: "f16" },
  "one query head per KV head": { shape: { numQueryHeads: 2 }, before: 70 },
  "16 query heads per KV head": { shape: { numQueryHeads: 16, numKvHeads: 1 }, before: 90 },
  "a sliding window": { before: 300, window: 100 },
  "a rotation of 32 dimensions": { before: 40, rotaryDim: 32 },
  "heads of 80": { shape: { headDim: 80 }, before: 40 },
  "pages of 16 tokens": { shape: { pageSize: 16 }, before: 40 },
  "f32 pages": { shape: { dtype: "f32" }, before: 40 },
  "pages in 8 bits": { shape: { kvType: "q8" }, before: 40 },
};

function inParts(cache: KvCache, { rotation, q, k, v, slots, sequences, out }: Step, window: number): void {
  cache.appendRotated(0, rotation, q, k, v, slots);
  cache.attend(0, q, sequences, out, { window });
}

for (const groupPages of [0, 8] as const) {
  for (const [name, given] of Object.entries(CASES)) {
    const groups = groupPages === 0 ? "" : " with groups of pages";
    deviceTest(`appendAttend gives what append and attention give for ${name}${groups}`, (device) => {
      const shape = { ...SHAPE, ...given.shape };
      const { before, window = 0 } = given;
      const [joined, parted] = twoCaches(device, shape, groupPages, [before]);
      const one = stepAt(device, shape, [before], given), other = stepAt(device, shape, [before], given);
      joined.appendAttend(0, one.rotation, one, one.sequences, one.out, { window });
      inParts(parted, other, window);
      const sameBits = !given.longSplits || device.backend === "cpu";
      (sameBits ? assertSameBits : assertNumbersClose)(one.out.readFloats(), other.out.readFloats(), one.out.shape);
      assertSameCaches(joined, parted, shape, [before + 1]);
    });
  }
}

for (const recorded of [false, true]) {
  const how = recorded ? "in one recording" : "without a copy between them";
  deviceTest(`appendAttend of tokens that follow each other ${how}`, (device) => {
    if (recorded && !device.records) return;
    const [joined, parted] = twoCaches(device, SHAPE, 8, [60]);
    const steps = Array.from({ length: 12 }, (_, i) => stepAt(device, SHAPE, [60 + i]));
    const others = Array.from({ length: 12 }, (_, i) => stepAt(device, SHAPE, [60 + i]));
    runAll(device, recorded, () => {
      for (const one of steps) joined.appendAttend(0, one.rotation, one, one.sequences, one.out);
    });
    for (const other of others) {
      inParts(parted, other, 0);
      other.out.readFloats();
    }
    steps.forEach(({ out }, i) => assertSameBits(out.readFloats(), others[i]!.out.readFloats(), out.shape));
    assertSameCaches(joined, parted, SHAPE, [72]);
  });
}
