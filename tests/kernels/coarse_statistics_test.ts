/** The coarse copies of page statistics, which the CUDA build stores, bit for bit. */
import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import { coarseRow } from "../reference/coarse_statistics.ts";
import { DEVICE_KIND, deviceTest } from "../support/device.ts";
import { appendAt, cacheShape, type KeysAndValues, type PagedShape, randomSequence } from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 128 };
const STATISTICS = { variance: true, minMax: false, coarse: true };

/** The CPU build stores no copies. */
function cudaTest(name: string, body: (device: Device) => void): void {
  if (DEVICE_KIND === "cuda") deviceTest(name, body);
  else Deno.test.ignore(name, () => {});
}

function cacheWith(device: Device, shape: PagedShape, part: KeysAndValues): KvCache {
  const cache = KvCache.create(device, cacheShape(shape, { statistics: STATISTICS }));
  const tokens = part.keys.length / (shape.numKvHeads * shape.headDim);
  appendAt(cache, part, Int32Array.from({ length: tokens }, (_, token) => token));
  return cache;
}

/** Rows and scales of a page, the last fields of what a cache with one layer and no groups exports. `[Hk]` */
function storedRows(device: Device, cache: KvCache, page: number): { bytes: number[]; scales: [number, number] }[] {
  const { headDim, numKvHeads } = cache.shape;
  const rowBytes = headDim + 4 * (headDim <= 64 ? 4 : headDim <= 128 ? 8 : 16);
  const all = new Uint8Array(KvCache.measure(device, cache.shape).unit);
  cache.exportPages([page], all);
  const scales = new Uint32Array(all.slice(-4 * numKvHeads).buffer);
  const first = all.length - numKvHeads * (rowBytes + 4);
  const asFloat = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0]!;
  return Array.from(scales, (both, head) => ({
    bytes: [...all.subarray(first + head * rowBytes, first + (head + 1) * rowBytes)],
    scales: [asFloat(both << 16), asFloat(both & 0xffff0000)],
  }));
}

function assertCoarse(device: Device, cache: KvCache, pages: number): void {
  const { headDim: d } = cache.shape;
  for (let page = 0; page < pages; page++) {
    const [mean, variance] = (["mean", "var"] as const).map((field) => cache.readPage(0, page, field));
    storedRows(device, cache, page).forEach((row, head) => {
      const part = (numbers: Float32Array): Float32Array => numbers.subarray(head * d, (head + 1) * d);
      assertEquals(row, coarseRow(part(mean!), part(variance!)));
    });
  }
}

for (const headDim of [64, 96, 128, 256]) {
  for (const dtype of ["bf16", "f16"] as const) {
    cudaTest(`append stores means in 8 bits and variances in 2, for ${dtype} and heads of ${headDim}`, (device) => {
      const shape = { ...SHAPE, dtype, headDim };
      assertCoarse(device, cacheWith(device, shape, randomSequence(new Random(headDim), shape, 61)), 8);
    });
  }
}

for (const [name, value] of Object.entries({ zero: 0, NaN: NaN, infinite: Infinity, tiny: 1e-42 })) {
  cudaTest(`append stores the coarse row of a page with a key of ${name}`, (device) => {
    const part = randomSequence(new Random(1), SHAPE, 8);
    part.keys.fill(value, 0, Math.abs(value) < 1 ? part.keys.length : SHAPE.headDim);
    assertCoarse(device, cacheWith(device, SHAPE, part), 1);
  });
}
