import { assertAlmostEquals, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError } from "../../ffi/errors.ts";
import { pageMass } from "../../ffi/page_mass.ts";
import { inWindow } from "../reference/decode_attention.ts";
import { pageMass as reference } from "../reference/page_mass.ts";
import { joined, queryNear } from "../support/cases.ts";
import { assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { GRID, gridLengths } from "../support/grid.ts";
import { buildPaged, type Paged, type PagedShape, randomSequence } from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 64 };

interface Batch {
  paged: Paged;
  q: Float32Array<ArrayBuffer>;
}

function makeBatch(device: Device, shape: PagedShape, lengths: readonly number[], seed = 1): Batch {
  const random = new Random(seed);
  const parts = lengths.map((tokens) => randomSequence(random, shape, tokens));
  const q = joined(parts.map(({ keys }) => queryNear(random, keys, shape)));
  return { paged: buildPaged(device, shape, parts, random), q };
}

/** `[B][Hq][page]`. */
function measure({ paged, q }: Batch, window = 0): number[][][] {
  const { device, cache, shape, tokens } = paged;
  const pages = cache.shape.maxPagesPerSequence;
  const mass = device.createTensor("f32", [tokens.length, shape.numQueryHeads, pages]);
  const query = device.upload(q, [tokens.length, shape.numQueryHeads, shape.headDim]);
  pageMass(cache, 0, query, paged.sequences, mass, { window });
  const numbers = mass.readFloats();
  return tokens.map((count, b) =>
    Array.from({ length: shape.numQueryHeads }, (_, h) => {
      const from = (b * shape.numQueryHeads + h) * pages;
      return [...numbers.slice(from, from + Math.ceil(count / shape.pageSize))];
    })
  );
}

function assertAsReference(batch: Batch, window = 0): void {
  const { paged: { shape, stored, tokens }, q } = batch;
  const width = shape.numQueryHeads * shape.headDim;
  measure(batch, window).forEach((found, b) => {
    const query = q.subarray(b * width, (b + 1) * width);
    const wanted = reference(query, stored[b]!.keys, shape, shape.pageSize, inWindow(tokens[b]!, window));
    assertNumbersClose(found.flat(), wanted.flat(), [wanted.length, wanted[0]!.length], { relative: 1e-4 });
  });
}

for (const gridCase of GRID) {
  deviceTest(`pageMass gives the share of every page in ${gridCase.name}`, (device) => {
    assertAsReference(makeBatch(device, gridCase.shape, gridLengths(gridCase), gridCase.seed));
  });
}

for (const group of [16, 20]) {
  deviceTest(`pageMass serves ${group} query heads a KV head`, (device) => {
    assertAsReference(makeBatch(device, { ...SHAPE, numQueryHeads: 2 * group }, [50]));
  });
}

for (const window of [1, 20, 64, 300]) {
  deviceTest(`pageMass with a window of ${window} leaves earlier tokens out`, (device) => {
    assertAsReference(makeBatch(device, SHAPE, [203, 5]), window);
  });
}

deviceTest("pageMass of 20,000 tokens sums to 1", (device) => {
  for (const row of measure(makeBatch(device, SHAPE, [20_000])).flat()) {
    assertAlmostEquals(row.reduce((sum, share) => sum + share, 0), 1, 1e-4);
  }
});

deviceTest("pageMass refuses a mass of another width than the page table", (device) => {
  const { paged, q } = makeBatch(device, SHAPE, [50]);
  const query = device.upload(q, [1, SHAPE.numQueryHeads, SHAPE.headDim]);
  const mass = device.createTensor("f32", [1, SHAPE.numQueryHeads, 3]);
  assertThrows(() => pageMass(paged.cache, 0, query, paged.sequences, mass), NativeError, "mass");
});
