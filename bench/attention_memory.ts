/** How much memory a case of `bench attention` needs, and over how many layers it can rotate. */
import { PagesiftError } from "../engine/errors.ts";
import { cacheStatistics, poolPages, statisticsFor } from "../engine/pages/kv_pool.ts";
import { statisticsRowBytes } from "../engine/pages/kv_type.ts";
import type { Device } from "../ffi/device.ts";
import { peakBytes } from "./peak.ts";
import { cacheBytes, largestThat } from "../engine/memory.ts";
import { cacheSplit, sizeText, waysText } from "./memory.ts";
import type { CacheShape } from "../ffi/structs.ts";
import { type AttentionCase, type AttentionPlan, pageBytes, pagesOf, rowsOf } from "./attention_plan.ts";

/**
 * Consecutive calls touch at least this much, if memory allows: more than the last-level cache of nearly all
 * machines.
 */
const ROTATED_BYTES = 256 << 20;
const LAYERS = { least: 2, most: 96 } as const;
/** Share of the free memory for the cache; queries, results and the source of the keys come on top. */
const SHARE_OF_FREE = 0.8;

/** The cache of a case with this many layers. */
export function caseShape(wanted: AttentionCase, plan: AttentionPlan, device: Device, numLayers: number): CacheShape {
  const groupPages = device.backend === "cuda" && plan.levels === 2 ? 8 : 0;
  return {
    numPages: poolPages(
      wanted.batch * pagesOf(wanted) * wanted.pageSize,
      wanted.batch,
      wanted.pageSize,
      groupPages || 1,
    ),
    maxPagesPerSequence: pagesOf(wanted),
    numLayers,
    numQueryHeads: wanted.queryHeads,
    numKvHeads: wanted.kvHeads,
    headDim: wanted.headDim,
    pageSize: wanted.pageSize,
    dtype: wanted.dtype,
    statistics: cacheStatistics(statisticsFor(wanted.scorers), groupPages),
    maxSequences: wanted.batch,
    groupPages,
  };
}

/**
 * Layers that a case rotates over: enough that the smallest sparse call finds nothing in a cache, if that many fit.
 *
 * @throws {PagesiftError} of kind "memory" with the split and what would fit, if not even two layers fit
 */
export function planLayers(wanted: AttentionCase, plan: AttentionPlan, device: Device): number {
  const rows = rowsOf(wanted);
  const least = Math.min(...wanted.scorers.map((scorer) => statisticsRowBytes(scorer, wanted.headDim, wanted.dtype)));
  const smallestBudget = Math.min(...wanted.budgets) / wanted.pageSize;
  const touched = rows * (pagesOf(wanted) * least + smallestBudget * pageBytes(wanted));
  const layers = Math.min(LAYERS.most, Math.max(LAYERS.least, Math.ceil(ROTATED_BYTES / touched)));
  const info = device.describe();
  const { availableBytes } = info;
  const room = (availableBytes - peakBytes(info)) * SHARE_OF_FREE;
  for (let count = layers; count >= LAYERS.least; count--) {
    if (cacheBytes(device, caseShape(wanted, plan, device, count)) <= room) return count;
  }
  throw tooLarge(wanted, plan, device, room);
}

function tooLarge(wanted: AttentionCase, plan: AttentionPlan, device: Device, room: number): PagesiftError {
  const fits = (changed: Partial<AttentionCase>): boolean =>
    cacheBytes(device, caseShape({ ...wanted, ...changed }, plan, device, LAYERS.least)) <= room;
  const { batch, contextTokens, pageSize } = wanted;
  const ways = waysText([
    ["--batch", largestThat((count) => fits({ batch: count }), batch)],
    ["--context", pageSize * largestThat((pages) => fits({ contextTokens: pages * pageSize }), pagesOf(wanted))],
  ]);
  const split = cacheSplit(device, caseShape(wanted, plan, device, LAYERS.least));
  return new PagesiftError(
    "memory",
    `Not enough memory for --batch ${batch} --context ${contextTokens}: two alternating layers need ${split}, of ` +
      `${sizeText(room)} usable${ways}`,
  );
}
