import type { Sequences } from "./cache_options.ts";
import type { KvCache } from "./kv_cache.ts";
import type { Tensor } from "./tensor.ts";

/**
 * The share of every page in the exact softmax of each query head: the attention that the page receives in dense attention, which
 * the scores only predict. Reads every key, so it is for inspecting a step, not part of one.
 *
 * @param q f32 `[B, Hq, d]`
 * @param mass f32 `[B, Hq, M]`, written for the pages that a sequence has; a row sums to 1
 * @param options.window only the last tokens count; 0 for all
 * @param options.scale multiplies q.k; default 1 / sqrt(d)
 */
export function pageMass(
  cache: KvCache,
  layer: number,
  q: Tensor,
  sequences: Sequences,
  mass: Tensor,
  { window = 0, scale = 1 / Math.sqrt(cache.shape.headDim) }: { window?: number; scale?: number } = {},
): void {
  const { pageTable, lengths } = sequences;
  cache.device.check(
    cache.device.native.ps_page_mass(
      cache.pointer,
      layer,
      scale,
      window,
      q.struct,
      pageTable.struct,
      lengths.struct,
      mass.struct,
    ),
  );
}
