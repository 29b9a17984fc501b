/** What every layer did in one decode step: its query, the keys and values it had, and its answer. */
import type { Engine } from "../../engine/engine.ts";
import type { KvPool } from "../../engine/pages/kv_pool.ts";
import { type PagePolicy, resolvePolicy } from "../../engine/pages/page_policy.ts";
import type { Session } from "../../engine/session.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { SparseOptions } from "../../engine/types.ts";

/** A pool with one sequence in it. */
export interface Prefilled {
  session: Session;
  policy: PagePolicy;
  pool: KvPool;
  sequence: Sequence;
}

export interface LayerTrace {
  /** `[Hq, d]` */
  query: Float32Array<ArrayBuffer>;
  /** `[n, Hk, d]` */
  keys: Float32Array<ArrayBuffer>;
  values: Float32Array<ArrayBuffer>;
  /** `[Hq, d]` */
  attended: Float32Array<ArrayBuffer>;
}

/** Takes the ids into a new pool; the pages of the sequence are out of order. */
export async function prefill(engine: Engine, ids: readonly number[], sparse: SparseOptions): Promise<Prefilled> {
  const policy = resolvePolicy(sparse, engine.config.slidingWindows);
  const need = { totalTokens: ids.length + 100, longestTokens: ids.length + 100, maxSequences: 1 };
  const session = engine.openSession(policy, need);
  const { pool } = session;
  const [first = 0, ...others] = Array.from({ length: 4 }, () => pool.allocator.allocate());
  pool.allocator.free([...others.reverse(), first]);
  const sequence = session.openSequence();
  await session.prefill(sequence, ids);
  return { session, policy, pool, sequence };
}

/** Keys or values `[n, Hk, d]` of the sequence in one layer. */
export function readTokens(
  { pool, sequence }: Prefilled,
  layer: number,
  field: "keys" | "values",
): Float32Array<ArrayBuffer> {
  const { numKvHeads, headDim, pageSize } = pool.shape;
  const out = new Float32Array(sequence.length * numKvHeads * headDim);
  const pages = sequence.pages.map((page) => pool.cache.readPage(layer, page, field));
  for (let token = 0; token < sequence.length; token++) {
    const page = pages[Math.floor(token / pageSize)] ?? new Float32Array();
    for (let head = 0; head < numKvHeads; head++) {
      const start = (head * pageSize + token % pageSize) * headDim;
      out.set(page.subarray(start, start + headDim), (token * numKvHeads + head) * headDim);
    }
  }
  return out;
}

/** Decodes one token and looks at every layer while its activations are still there. */
export function traceDecode(prefilled: Prefilled, id: number): LayerTrace[] {
  const { session, policy, sequence } = prefilled;
  const layers: LayerTrace[] = [];
  const views = session.loaded.model.activations.views(1);
  const afterLayer = (layer: number): void => {
    layers.push({
      query: views.q.readFloats(),
      keys: readTokens(prefilled, layer, "keys"),
      values: readTokens(prefilled, layer, "values"),
      attended: views.attended.readFloats(),
    });
  };
  session.step([sequence], [id], policy, { afterLayer });
  return layers;
}
