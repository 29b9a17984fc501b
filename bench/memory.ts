/** The memory of caches, and the largest setting that still fits. */
import { format } from "@std/fmt/bytes";
import type { Device } from "../ffi/device.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";

/** Slot numbers have 32 bits. */
const MAX_POOL_TOKENS = 2 ** 31 - 1;

/** Bytes of a cache of this shape; infinite if its tokens exceed the slot numbers. */
export function cacheBytes(device: Device, shape: CacheShape): number {
  if (shape.numPages * shape.pageSize > MAX_POOL_TOKENS) return Infinity;
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  return kv + statistics + scratch;
}

/** The parts of a cache for a message. */
export function cacheSplit(device: Device, shape: CacheShape): string {
  const tokens = shape.numPages * shape.pageSize;
  if (tokens > MAX_POOL_TOKENS) return `${tokens} tokens, more than the ${MAX_POOL_TOKENS} slots of a pool`;
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  return `KV ${sizeText(kv)}, statistics ${sizeText(statistics)} and scratch ${sizeText(scratch)}`;
}

export function sizeText(bytes: number): string {
  return format(bytes, { binary: true, maximumFractionDigits: 1 });
}

/** The largest whole number from 1 to `most` that passes, or 0, given that every smaller number also passes. */
export function largestThat(passes: (count: number) => boolean, most: number): number {
  let [low, high] = [0, most + 1];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (passes(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** The end of a message: flags that would fit, or nothing. */
export function waysText(ways: readonly [flag: string, value: number][]): string {
  const possible = ways.filter(([, value]) => value > 0).map(([flag, value]) => `${flag} ${value}`);
  return possible.length === 0 ? "" : `; ${possible.join(" or ")} would fit`;
}
