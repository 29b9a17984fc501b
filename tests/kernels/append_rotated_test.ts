/** Norm, rotation and append in one call against the operations that it joins. */
import { assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { NativeError } from "../../ffi/errors.ts";
import { rmsNorm, rope, ropeTable } from "../../ffi/ops.ts";
import type { Tensor } from "../../ffi/tensor.ts";
import { contents } from "../support/cache_contents.ts";
import { normals } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest, settle } from "../support/device.ts";
import { type FloatType, ROUNDING, uploadAs } from "../support/numbers.ts";
import { cacheShape, type PagedShape, slotsOf } from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "f32", pageSize: 8, numQueryHeads: 6, numKvHeads: 2, headDim: 64 };
/** Of one group of pages, where the cache keeps groups. */
const TABLE = [8, 9, 10, 11];
const EPS = 1e-6;

interface Case {
  shape?: Partial<PagedShape>;
  /** Dimensions of a head that are rotated; all where absent. */
  rotaryDim?: number;
  normWeights?: FloatType;
  tokens: number;
  /** Place in the sequence of the first token. */
  first?: number;
  /** Queries have a table of their own. */
  queryScale?: number;
}

const CASES: Record<string, Case> = {
  "one token": { tokens: 1 },
  "one token behind others of its page": { tokens: 1, first: 13, normWeights: "bf16" },
  "tokens over a page's border": { tokens: 5, first: 5, normWeights: "f32" },
  "a prompt of four pages": { tokens: 32, normWeights: "f16" },
  "heads of 128": { shape: { headDim: 128 }, tokens: 3, normWeights: "bf16" },
  "heads of 256": { shape: { headDim: 256, numKvHeads: 1 }, tokens: 2, normWeights: "bf16" },
  "heads of 80, of which 32 are rotated": { shape: { headDim: 80 }, rotaryDim: 32, tokens: 3 },
  "a rotation of 6 dimensions": { rotaryDim: 6, tokens: 3, normWeights: "f32" },
  "queries that grow with their position": { tokens: 4, queryScale: 1.5 },
  "bf16 pages": { shape: { dtype: "bf16", headDim: 128, numQueryHeads: 8 }, tokens: 9, normWeights: "bf16" },
  "f16 pages": { shape: { dtype: "f16" }, tokens: 9 },
  "one query head a KV head": { shape: { numQueryHeads: 2 }, tokens: 2 },
};

interface Inputs {
  /** What q, k and v are columns of. */
  qkv: Tensor;
  q: Tensor;
  k: Tensor;
  v: Tensor;
  slots: Tensor;
  queryTable: Tensor;
  keyTable: Tensor;
  norm?: { query: Tensor; key: Tensor; eps: number };
}

/** The same for every call: q, k and v are columns of one tensor, as a model has them. */
function inputsOf(device: Device, shape: PagedShape, { tokens, first = 0, ...given }: Case): Inputs {
  const { numQueryHeads, numKvHeads, headDim, pageSize } = shape;
  const random = new Random(tokens + headDim);
  const [queryWidth, keyWidth] = [numQueryHeads * headDim, numKvHeads * headDim];
  const width = queryWidth + 2 * keyWidth;
  const qkv = device.upload(normals(random, tokens * width), [tokens, width]);
  const rotaryDim = given.rotaryDim ?? headDim;
  const positions = device.upload(Int32Array.from({ length: tokens }, (_, i) => first + i), [tokens]);
  const frequencies = device.upload(Float32Array.from({ length: rotaryDim / 2 }, (_, i) => 0.5 ** i), [rotaryDim / 2]);
  const table = (scale: number): Tensor => {
    const out = device.createTensor("f32", [tokens, rotaryDim]);
    ropeTable(device, positions, frequencies, { scale, positionBeta: 0, positionOrigin: 1 }, out);
    return out;
  };
  const keyTable = table(1);
  const weight = (dtype: FloatType): Tensor => uploadAs(device, dtype, normals(random, headDim), [headDim]);
  return {
    qkv,
    q: qkv.columns(0, queryWidth).heads(numQueryHeads),
    k: qkv.columns(queryWidth, keyWidth).heads(numKvHeads),
    v: qkv.columns(queryWidth + keyWidth, keyWidth).heads(numKvHeads),
    slots: device.upload(slotsOf(TABLE, pageSize, first, tokens), [tokens]),
    queryTable: given.queryScale === undefined ? keyTable : table(given.queryScale),
    keyTable,
    ...given.normWeights && { norm: { query: weight(given.normWeights), key: weight(given.normWeights), eps: EPS } },
  };
}

/** Without the keys and values behind each token's queries. */
function queriesOf({ qkv, q }: Inputs): Float32Array<ArrayBuffer> {
  const [width, queryWidth] = [qkv.shape[1]!, q.shape[1]! * q.shape[2]!];
  return qkv.readFloats().filter((_, i) => i % width < queryWidth);
}

function inParts(cache: KvCache, { q, k, v, slots, queryTable, keyTable, norm }: Inputs): void {
  const { device } = cache;
  if (norm) {
    rmsNorm(device, q, norm.query, norm.eps, q);
    rmsNorm(device, k, norm.key, norm.eps, k);
  }
  rope(device, q, queryTable);
  rope(device, k, keyTable);
  cache.append(0, k, v, slots);
}

/** Fills the places before `first`, so that pages hold tokens already. */
function fill(device: Device, cache: KvCache, shape: PagedShape, first: number): void {
  if (first === 0) return;
  const { k, v, slots } = inputsOf(device, shape, { tokens: first });
  cache.append(0, k, v, slots);
}

for (const groupPages of [0, 8] as const) {
  for (const [name, given] of Object.entries(CASES)) {
    const groups = groupPages === 0 ? "" : " with groups of pages";
    deviceTest(`appendRotated gives what norm, rope and append give for ${name}${groups}`, (device) => {
      const shape = { ...SHAPE, ...given.shape };
      const { first = 0, tokens } = given;
      const [joined, parted] = [0, 1].map(() =>
        KvCache.create(device, cacheShape(shape, { groupPages, numPages: 16 }))
      );
      const [one, other] = [inputsOf(device, shape, given), inputsOf(device, shape, given)];
      for (const cache of [joined!, parted!]) fill(device, cache, shape, first);
      joined!.appendRotated(0, one, one.q, one.k, one.v, one.slots);
      inParts(parted!, other);
      const size = [tokens, shape.numQueryHeads, shape.headDim];
      assertNumbersClose(queriesOf(one), queriesOf(other), size);
      const table = TABLE.slice(0, Math.ceil((first + tokens) / shape.pageSize));
      const wanted = contents(parted!, table, first + tokens);
      contents(joined!, table, first + tokens).forEach((numbers, i) =>
        assertNumbersClose(numbers, wanted[i]!, [wanted[i]!.length], { relative: 1e-5 + 2 * ROUNDING[shape.dtype] })
      );
    });
  }
}

/** Pages, tokens that lie there, and tokens that come. */
const STEP = [
  { table: [0, 1], first: 13, tokens: 1 },
  { table: [8], first: 0, tokens: 1 },
  { table: [16, 17], first: 6, tokens: 4 },
  { table: [24, 25, 26], first: 23, tokens: 1 },
] as const;

for (const groupPages of [0, 8] as const) {
  for (const atRest of [true, false]) {
    const groups = groupPages === 0 ? "pages" : "groups of pages";
    const before = atRest ? "that lie still" : "that were written just before";
    deviceTest(`appendRotated of several sequences gives what its parts give in ${groups} ${before}`, (device) => {
      for (const dtype of ["f32", "bf16"] as const) {
        const shape = { ...SHAPE, dtype };
        const [joined, parted] = [0, 1].map(() =>
          KvCache.create(device, cacheShape(shape, { groupPages, numPages: 32 }))
        );
        const slots = STEP.flatMap(({ table, first, tokens }) => [...slotsOf(table, shape.pageSize, first, tokens)]);
        const step: Case = { tokens: slots.length, normWeights: "bf16" };
        const [one, other] = [0, 1].map(() => ({
          ...inputsOf(device, shape, step),
          slots: device.upload(Int32Array.from(slots), [slots.length]),
        }));
        for (const { table, first } of STEP.filter(({ first }) => first > 0)) {
          const { k, v } = inputsOf(device, shape, { tokens: first });
          const held = device.upload(slotsOf(table, shape.pageSize, 0, first), [first]);
          for (const cache of [joined!, parted!]) cache.append(0, k, v, held);
        }
        if (atRest) settle(device);
        joined!.appendRotated(0, one!, one!.q, one!.k, one!.v, one!.slots);
        inParts(parted!, other!);
        assertNumbersClose(queriesOf(one!), queriesOf(other!), [slots.length, shape.numQueryHeads, shape.headDim]);
        for (const { table, first, tokens } of STEP) {
          const wanted = contents(parted!, table, first + tokens);
          contents(joined!, table, first + tokens).forEach((numbers, i) =>
            assertNumbersClose(numbers, wanted[i]!, [wanted[i]!.length], { relative: 1e-5 + 2 * ROUNDING[dtype] })
          );
        }
      }
    });
  }
}

deviceTest("appendRotated refuses tables of different widths", (device) => {
  const cache = KvCache.create(device, cacheShape(SHAPE, { numPages: 16 }));
  const { q, k, v, slots, keyTable } = inputsOf(device, SHAPE, { tokens: 2 });
  const narrow = device.createTensor("f32", [2, 32]);
  assertThrows(
    () => cache.appendRotated(0, { queryTable: keyTable, keyTable: narrow }, q, k, v, slots),
    NativeError,
    "k_table",
  );
});
