/** The memory of caches, and the largest setting that still fits. */
import { format } from "@std/fmt/bytes";
import { MAX_POOL_TOKENS } from "../engine/memory.ts";
import type { Device } from "../ffi/device.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";

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

/** The end of a message: flags that would fit, or nothing. */
export function waysText(ways: readonly [flag: string, value: number][]): string {
  const possible = ways.filter(([, value]) => value > 0).map(([flag, value]) => `${flag} ${value}`);
  return possible.length === 0 ? "" : `; ${possible.join(" or ")} would fit`;
}
