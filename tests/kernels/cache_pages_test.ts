/** Pages that leave a cache and enter another one keep every bit: keys, values, scales and statistics of all layers. */
import { assertEquals, assertThrows } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { Device } from "../../ffi/device.ts";
import { NativeError } from "../../ffi/errors.ts";
import { KvCache } from "../../ffi/kv_cache.ts";
import type { CacheShape } from "../../ffi/structs.ts";
import { assertSameContents, contents } from "../support/cache_contents.ts";
import { deviceTest } from "../support/device.ts";
import { appendAt, cacheShape, type PagedShape, randomSequence } from "../support/paged.ts";

const SHAPE: PagedShape = { dtype: "bf16", pageSize: 8, numQueryHeads: 4, numKvHeads: 2, headDim: 64 };
const LAYERS = { numLayers: 2, numPages: 32, maxPagesPerSequence: 32 };

/** A cache whose pages 0 to 31 are full. */
function filled(device: Device, shape: CacheShape): KvCache {
  const cache = KvCache.create(device, shape);
  const slots = Int32Array.from({ length: 256 }, (_, token) => token);
  for (const layer of [0, 1]) appendAt(cache, randomSequence(new Random(layer + 1), SHAPE, 256), slots, layer);
  return cache;
}

const CASES: [string, PagedShape, 0 | 8][] = [
  ["bf16", SHAPE, 0],
  ["f32", { ...SHAPE, dtype: "f32" }, 0],
  ["q8", { ...SHAPE, kvType: "q8" }, 0],
  ["fp8", { ...SHAPE, kvType: "fp8" }, 0],
  ["bf16 in groups, with coarse copies", SHAPE, 8],
  ["q8 in groups, with coarse copies", { ...SHAPE, kvType: "q8" }, 8],
];

for (const [name, paged, groupPages] of CASES) {
  deviceTest(`KvCache.importPages stores what exportPages copied, bit for bit (${name})`, (device) => {
    const statistics = { variance: true, minMax: true, coarse: groupPages === 8 };
    const shape = cacheShape(paged, { ...LAYERS, groupPages, statistics });
    const [from, to] = [filled(device, shape), KvCache.create(device, { ...shape, numPages: 64 })];
    const [sources, targets] = groupPages ? [[8, 0, 24], [56, 16, 24]] : [[3, 4, 5, 0, 9], [60, 7, 8, 9, 2]];
    const bytes = new Uint8Array(sources.length * KvCache.measure(device, shape).unit);
    from.exportPages(sources, bytes);
    to.importPages(targets, bytes);
    const again = new Uint8Array(bytes.length);
    to.exportPages(targets, again);
    assertEquals(again, bytes);
    for (const [index, source] of sources.entries()) {
      for (let page = 0; page < (groupPages || 1); page++) {
        for (const layer of [0, 1]) {
          const found = contents(to, [targets[index]! + page], SHAPE.pageSize, layer);
          assertSameContents(found, contents(from, [source + page], SHAPE.pageSize, layer));
        }
      }
    }
  });
}

deviceTest(
  "KvCache.exportPages refuses pages outside the pool, the middle of a group, and memory of another size",
  (device) => {
    const shape = cacheShape(SHAPE, { ...LAYERS, groupPages: 8 });
    const cache = KvCache.create(device, shape);
    const bytes = new Uint8Array(KvCache.measure(device, shape).unit);
    assertThrows(() => cache.exportPages([32], bytes), NativeError, "outside the pool");
    assertThrows(() => cache.exportPages([4], bytes), NativeError, "first of a group");
    assertThrows(() => cache.importPages([8], bytes.slice(1)), NativeError, "bytes");
  },
);
