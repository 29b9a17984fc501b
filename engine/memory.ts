import { format } from "@std/fmt/bytes";
import type { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { PagesiftError } from "./errors.ts";

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

/** The longest context whose cache would fit, in tokens; pools of one sequence grow by whole pages. */
function largestContext(device: Device, shape: CacheShape, availableBytes: number): number {
  const perPage = (numPages: number): number => {
    const { kv, statistics } = KvCache.measure(device, { ...shape, numPages });
    return kv + statistics;
  };
  const { scratch } = KvCache.measure(device, shape);
  return Math.max(0, Math.floor((availableBytes - scratch) / (perPage(1025) - perPage(1)) * 1024)) * shape.pageSize;
}

/** @throws {PagesiftError} of kind "memory" that says what a cache of this shape takes, what is free, and what context would fit */
export function checkCacheFits(device: Device, shape: CacheShape, weightBytes: number): void {
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  const { availableBytes } = device.describe();
  if (kv + statistics + scratch <= availableBytes) return;
  throw new PagesiftError(
    "memory",
    `Not enough memory for a context of ${shape.numPages * shape.pageSize} tokens: KV ${bytes(kv)}, statistics ${
      bytes(statistics)
    }, ` +
      `scratch ${bytes(scratch)} needed beside weights of ${bytes(weightBytes)}, ${bytes(availableBytes)} free; ` +
      `about ${largestContext(device, shape, availableBytes)} tokens would fit (--ctx-size, --max-tokens)`,
  );
}

/** Turns a failed allocation into the error that users see. */
export function memoryError(error: unknown): unknown {
  if (!(error instanceof NativeError) || error.status !== Status.OutOfMemory) return error;
  return new PagesiftError("memory", error.message, { cause: error });
}
