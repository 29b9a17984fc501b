import { format } from "@std/fmt/bytes";
import type { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { KvCache } from "../ffi/kv_cache.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { PagesiftError } from "./errors.ts";
import type { LoadedModel } from "./loaded_model.ts";
import { longestTokens } from "./generation.ts";
import { cacheShape, type PoolNeed, poolPages } from "./pages/kv_pool.ts";
import type { PagePolicy } from "./pages/page_policy.ts";
import { distinctTokens } from "./pages/prompt_order.ts";
import { MAX_BATCH, type Request } from "./request.ts";

function bytes(count: number): string {
  return format(count, { binary: true });
}

/** @throws {PagesiftError} of kind "memory" when weights and activations do not fit what the device has free */
export function checkWeightsFit(device: Device, weightBytes: number): void {
  const { availableBytes } = device.describe();
  if (weightBytes <= availableBytes) return;
  throw new PagesiftError(
    "memory",
    `Not enough memory for the weights: ${bytes(weightBytes)} needed${
      device.members > 1 ? ` on each of ${device.members} devices` : ""
    }, ${bytes(availableBytes)} free; free some, or use a smaller model`,
  );
}

/** Slots are numbered in 32 bits. */
export const MAX_POOL_TOKENS = 2 ** 31 - 1;

/** Bytes of a cache of this shape; infinite if its tokens exceed the slot numbers. */
export function cacheBytes(device: Device, shape: CacheShape): number {
  if (shape.numPages * shape.pageSize > MAX_POOL_TOKENS) return Infinity;
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  return kv + statistics + scratch;
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

/** Requests that may take all free memory where nobody says how many run at the same time; more may take half of it. */
const USUAL_BATCH = 16;
/** Tokens of a request for which there is room when more than {@link USUAL_BATCH} unknown ones run. */
const SHORT_REQUEST_TOKENS = 512;

/** @throws {PagesiftError} of kind "usage" */
export function checkParallel(parallel: number | undefined): void {
  if (parallel === undefined || (Number.isInteger(parallel) && parallel >= 1 && parallel <= MAX_BATCH)) return;
  throw new PagesiftError("usage", `parallel is ${parallel}, expected a whole number from 1 to ${MAX_BATCH}`);
}

/**
 * The need of the `parallel` largest requests together; tokens that requests share count once if that is less. Without a number, as many as
 * fit, but at least one.
 */
export function needOfKnown(
  { device, config, kv }: LoadedModel,
  policy: PagePolicy,
  requests: readonly Request[],
  parallel?: number,
): PoolNeed {
  const tokens = requests.map(longestTokens).sort((a, b) => b - a);
  const distinct = distinctTokens(requests.map((one) => ({ promptIds: one.promptIds, longest: longestTokens(one) })));
  const needOf = (count: number): PoolNeed => {
    const together = tokens.slice(0, count);
    const separate = together.reduce((sum, each) => sum + each, 0);
    return {
      totalTokens: Math.min(separate, distinct),
      longestTokens: tokens[0] ?? 1,
      maxSequences: together.length,
    };
  };
  if (parallel !== undefined) return needOf(parallel);
  const { availableBytes } = device.describe();
  const fits = (count: number): boolean => {
    const shape = cacheShape(config, kv, policy, needOf(count));
    return cacheBytes(device, shape) <= (count > USUAL_BATCH ? availableBytes / 2 : availableBytes);
  };
  return needOf(Math.max(1, largestThat(fits, Math.min(MAX_BATCH, tokens.length))));
}

/**
 * The need of requests that are not known: `parallel` (without a number, 16) of full length, or as many tokens as fit a number of bytes.
 * Without a number, more may run if they are short.
 */
export function needOfUnknown(
  { device, config, kv }: LoadedModel,
  policy: PagePolicy,
  limitBytes: number,
  parallel?: number,
): PoolNeed {
  let totalTokens = Math.min((parallel ?? USUAL_BATCH) * config.maxContext, Math.floor(MAX_POOL_TOKENS / 2));
  for (;;) {
    const longestTokens = Math.min(totalTokens, config.maxContext);
    const short = Math.max(USUAL_BATCH, Math.floor(totalTokens / SHORT_REQUEST_TOKENS));
    const need = { totalTokens, longestTokens, maxSequences: parallel ?? Math.min(MAX_BATCH, short) };
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
  return shape.pageSize * largestThat(fits, Math.floor(MAX_POOL_TOKENS / shape.pageSize) - 2 * groupPages);
}

/** @throws {PagesiftError} of kind "memory" when the tokens of a cache exceed the slot numbers */
export function checkPoolTokens({ numPages, pageSize }: CacheShape): void {
  const poolTokens = numPages * pageSize;
  if (poolTokens <= MAX_POOL_TOKENS) return;
  throw new PagesiftError(
    "memory",
    `A KV pool of ${poolTokens} tokens is too large, expected at most ${MAX_POOL_TOKENS}; lower --parallel or --max-tokens`,
  );
}

/** @throws {PagesiftError} of kind "memory" that names the memory that the cache requires, the free memory, and the context that would fit */
export function checkCacheFits(device: Device, shape: CacheShape, weightBytes: number): void {
  checkPoolTokens(shape);
  const { kv, statistics, scratch } = KvCache.measure(device, shape);
  const { availableBytes } = device.describe();
  if (kv + statistics + scratch <= availableBytes) return;
  const many = shape.maxSequences > 1;
  const what = many
    ? `${shape.maxSequences} sequences with ${shape.numPages * shape.pageSize} tokens`
    : `a context of ${shape.maxPagesPerSequence * shape.pageSize} tokens`;
  const flags = `${many ? "--parallel, " : ""}--ctx-size, --max-tokens`;
  throw new PagesiftError(
    "memory",
    `Not enough memory for ${what}: KV ${bytes(kv)}, statistics ${bytes(statistics)}, scratch ${bytes(scratch)} ` +
      `needed in addition to weights of ${bytes(weightBytes)}, ${bytes(availableBytes)} free; ` +
      `about ${largestContext(device, shape, availableBytes)} tokens would fit${many ? " in one" : ""} (${flags})`,
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
