/** The exact softmax mass of every page for a KV head: the ranking of a perfect selector. */
import type { KvCache, Sequences } from "../ffi/kv_cache.ts";
import { pageMass } from "../ffi/page_mass.ts";
import type { Tensor } from "../ffi/tensor.ts";

/** Inputs for the masses of one sequence. */
export interface MassRequest {
  layer: number;
  /** f32 `[1, Hq, d]` */
  q: Tensor;
  /** Page table and length of one sequence. */
  sequences: Sequences;
  /** f32 `[1, Hq, M]`, scratch */
  mass: Tensor;
  /** Pages of the sequence, at most M. */
  numPages: number;
}

/** `[Hk]`, each `[P]`: the mass of each page, averaged over the query heads that share the KV head's selection. */
export function groupMasses(cache: KvCache, { layer, q, sequences, mass, numPages }: MassRequest): Float64Array[] {
  pageMass(cache, layer, q, sequences, mass);
  const numbers = mass.readFloats();
  const { numQueryHeads, numKvHeads } = cache.shape;
  const [group, width] = [numQueryHeads / numKvHeads, numbers.length / numQueryHeads];
  return Array.from({ length: numKvHeads }, (_, head) => {
    const out = new Float64Array(numPages);
    for (let query = head * group; query < (head + 1) * group; query++) {
      for (let page = 0; page < numPages; page++) out[page]! += (numbers[query * width + page] ?? 0) / group;
    }
    return out;
  });
}
