import { format } from "@std/fmt/bytes";
import type { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { PagesiftError } from "./errors.ts";
import { type LoadedModel, MAX_BATCH } from "./loaded_model.ts";
import { cacheShape, type PoolNeed, poolPages } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";

function bytes(count: number): string {
  return format(count, { binary: true });
}

/** @throws {PagesiftError} of kind "memory" when weights and activations do not fit what the device has free */
export function checkWeightsFit(device: Device, weightBytes: number): void {
  const { availableBytes } = device.describe();
  if (weightBytes <= availableBytes) return;
  throw new PagesiftError(
    "memory",
    `Not enough memory for the weights: ${bytes(weightBytes)} needed, ${
      bytes(availableBytes)
    } free; free some, or use a smaller model`,
  );
}

/** Slots are numbered in 32 bits. */
const MAX_POOL_TOKENS = 2 ** 31 - 1;

function cacheBytes(device: Device, shape: CacheShape): number {
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  return kv + statistics + scratch;
}

/** The need of requests that are not known: as many of full length as decode together, or as many tokens as fit a number of bytes. */
export function needOfUnknown(
  { device, config, kv }: LoadedModel,
  policy: PagePolicy,
  limitBytes: number,
): PoolNeed {
  let totalTokens = Math.min(MAX_BATCH * config.maxContext, Math.floor(MAX_POOL_TOKENS / 2));
  for (;;) {
    const longestTokens = Math.min(totalTokens, config.maxContext);
    const need = { totalTokens, longestTokens, maxSequences: MAX_BATCH };
    const bytes = cacheBytes(device, cacheShape(config, kv, policy, need));
    if (bytes <= limitBytes || totalTokens <= policy.pageSize) return need;
    totalTokens = Math.max(policy.pageSize, Math.floor(totalTokens * Math.min(0.95, limitBytes / bytes)));
  }
}

/** The longest context of one sequence whose cache would fit, in tokens. */
function largestContext(device: Device, shape: CacheShape, availableBytes: number): number {
  const groupPages = shape.groupPages || 1;
  const fits = (pages: number): boolean => {
    const numPages = poolPages(pages * shape.pageSize, 1, shape.pageSize, groupPages);
    return cacheBytes(device, { ...shape, maxSequences: 1, numPages, maxPagesPerSequence: pages }) <= availableBytes;
  };
  let [low, high] = [0, Math.floor(MAX_POOL_TOKENS / shape.pageSize) - 2 * groupPages];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low * shape.pageSize;
}

/** @throws {PagesiftError} of kind "memory" that names the memory that the cache requires, the free memory, and the context that would fit */
export function checkCacheFits(device: Device, shape: CacheShape, weightBytes: number): void {
  const poolTokens = shape.numPages * shape.pageSize;
  if (poolTokens > MAX_POOL_TOKENS) {
    throw new PagesiftError(
      "memory",
      `A KV pool of ${poolTokens} tokens is too large, expected at most ${MAX_POOL_TOKENS}; send fewer requests at once, or lower --max-tokens`,
    );
  }
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  const { availableBytes } = device.describe();
  if (kv + statistics + scratch <= availableBytes) return;
  throw new PagesiftError(
    "memory",
    `Not enough memory for a context of ${shape.maxPagesPerSequence * shape.pageSize} tokens: KV ${
      bytes(kv)
    }, statistics ${bytes(statistics)}, ` +
      `scratch ${bytes(scratch)} needed in addition to weights of ${bytes(weightBytes)}, ${
        bytes(availableBytes)
      } free; ` +
      `about ${largestContext(device, shape, availableBytes)} tokens would fit (--ctx-size, --max-tokens)`,
  );
}

const KINDS: Readonly<Partial<Record<Status, "memory" | "device">>> = {
  [Status.OutOfMemory]: "memory",
  [Status.NoDevice]: "device",
  [Status.Unsupported]: "device",
  [Status.DeviceError]: "device",
};

/** Converts a failure of the device to the error that users see; returns other errors unchanged. */
export function engineError(error: unknown): unknown {
  const kind = error instanceof NativeError ? KINDS[error.status] : undefined;
  return kind ? new PagesiftError(kind, (error as NativeError).message, { cause: error }) : error;
}
