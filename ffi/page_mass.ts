import type { Sequences } from "./cache_options.ts";
import type { KvCache } from "./kv_cache.ts";
import type { Tensor } from "./tensor.ts";

/**
 * The share of every page in the exact softmax of each query head: the attention that dense attention gives to the page, which the
 * scores only predict. It reads every key, so it serves to inspect a decode step and is not part of one.
 *
 * @param q f32 `[B, Hq, d]`
 * @param mass f32 `[B, Hq, M]`, written for the pages that a sequence has; a row sums to 1
 * @param options.window only the last tokens count; 0 for all
 * @param options.scale multiplies q.k; default {@link KvCache.attentionScale}
 */
export function pageMass(
  cache: KvCache,
  layer: number,
  q: Tensor,
  sequences: Sequences,
  mass: Tensor,
  { window = 0, scale = cache.attentionScale }: { window?: number; scale?: number } = {},
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
