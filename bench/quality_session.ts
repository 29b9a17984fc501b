/** One document in the cache that many arms decode behind, a token at a time. */
import { DecodeBatch } from "../engine/decode_batch.ts";
import type { Engine } from "../engine/engine.ts";
import { cacheShape, KvPool } from "../engine/pages/kv_pool.ts";
import { checkCacheFits } from "../engine/memory.ts";
import type { DecodeAttention } from "../engine/model.ts";
import type { PagePolicy } from "../engine/pages/page_policy.ts";
import { Prefill } from "../engine/prefill.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import type { StepObserver } from "../engine/step_observer.ts";
import type { Sequences } from "../ffi/kv_cache.ts";
import type { Counters } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { agreementOf, oraclePages } from "./oracle.ts";
import { groupMasses } from "./page_mass.ts";
import type { QualityArm, QualityPlan } from "./quality_plan.ts";

/** Exact mass in the pages that an arm chose, over steps, layers and KV heads. */
export interface MassKept {
  rows: number;
  kept: number;
  oracle: number;
  recall: number;
}

export class QualitySession implements Disposable {
  readonly pool: KvPool;
  readonly #sequence: Sequence;
  readonly #mass: Tensor;
  #batch: DecodeBatch | undefined;
  #policy: PagePolicy | undefined;
  #length = 0;

  constructor(readonly engine: Engine, { scorers, pageSize, longest, arms }: QualityPlan) {
    const policy = engine.policy(arms[0]?.sparse ?? { pageSize });
    const need = { totalTokens: longest, longestTokens: longest, maxSequences: 1 };
    const statistics = { variance: scorers.includes("diag"), minMax: scorers.includes("quest") };
    const shape = { ...cacheShape(engine.config, engine.dtype, policy, need), statistics };
    checkCacheFits(engine.device, shape, engine.facts.weightBytes);
    this.pool = new KvPool(engine.device, shape);
    this.#sequence = this.pool.openSequence();
    this.#mass = engine.device.createTensor("f32", [1, shape.numQueryHeads, shape.maxPagesPerSequence]);
  }

  /** Takes the document in, densely and in chunks, in place of the one before. */
  async read(ids: readonly number[], breathe: () => Promise<void>): Promise<void> {
    this.#endArm();
    this.pool.truncate(this.#sequence, 0);
    const prefill = new Prefill(
      this.engine.model,
      this.pool,
      this.engine.policy({ mode: "off", pageSize: this.pool.shape.pageSize }),
    );
    try {
      await prefill.run(this.#sequence, ids, breathe, () => {});
      await this.engine.device.wait();
    } finally {
      prefill.close();
    }
    this.#length = ids.length;
  }

  /** Back to the end of the document, for this arm. */
  begin({ sparse }: QualityArm): void {
    this.#endArm();
    this.pool.truncate(this.#sequence, this.#length);
    this.#policy = this.engine.policy(sparse);
    this.#batch = new DecodeBatch(this.engine.device, this.pool, this.#policy);
  }

  /** Feeds a token to the arm that began. Returns the logits `[V]`. Looks at exact masses where `kept` is given. */
  step(id: number, arm: QualityArm, kept?: MassKept): Float32Array<ArrayBuffer> {
    const { model } = this.engine;
    const [batch, policy] = [this.#batch, this.#policy];
    if (!batch || !policy) throw new Error("No arm has begun");
    const hooks = arm.name === "oracle"
      ? { attend: this.#oracle(policy, kept) }
      : kept && arm.name === "sparse"
      ? { observer: this.#watch(policy, kept) }
      : {};
    const hidden = model.decode(this.pool, policy, batch.advance([this.#sequence], [id]), hooks);
    return model.logits(hidden).readFloats();
  }

  counters(): Counters {
    return this.pool.cache.counters();
  }

  /** Attends to the pages of highest exact mass. */
  #oracle(policy: PagePolicy, kept: MassKept | undefined): DecodeAttention {
    const { cache } = this.pool;
    return (layer, { sequences, selecting }, q, out) => {
      const rule = policy.layers[layer];
      if (rule?.kind !== "sparse" || !selecting) {
        return cache.attend(layer, q, sequences, out, { window: rule?.kind === "window" ? rule.tokens : 0 });
      }
      const masses = this.#masses(layer, q, sequences);
      const chosen = masses.map((mass) => oraclePages(mass, policy));
      const { selection } = selecting;
      selection.selected.write(Int32Array.from(chosen.flat()));
      selection.counts.write(Int32Array.from(chosen, ({ length }) => length));
      cache.attend(layer, q, sequences, out, { selection });
      if (kept) addKept(kept, masses, chosen, policy);
    };
  }

  /** Compares what a layer chose with the exact masses. */
  #watch(policy: PagePolicy, kept: MassKept): StepObserver {
    return {
      afterAttention: (layer, q, { sequences, selecting }) => {
        if (policy.layers[layer]?.kind !== "sparse" || !selecting) return;
        const masses = this.#masses(layer, q, sequences);
        const k = policy.budgetPages;
        const all = selecting.selection.selected.readInts();
        const chosen = masses.map((_, head) => Array.from(all.subarray(head * k, (head + 1) * k)));
        addKept(kept, masses, chosen, policy);
      },
    };
  }

  #masses(layer: number, q: Tensor, sequences: Sequences): Float64Array[] {
    const numPages = this.#sequence.pages.length;
    return groupMasses(this.pool.cache, { layer, q, sequences, mass: this.#mass, numPages });
  }

  #endArm(): void {
    this.#batch?.close();
    this.#batch = undefined;
  }

  [Symbol.dispose](): void {
    this.#endArm();
    this.#mass.buffer.close();
    this.pool.close();
  }
}

function addKept(
  kept: MassKept,
  masses: readonly Float64Array[],
  chosen: readonly number[][],
  policy: PagePolicy,
): void {
  masses.forEach((mass, head) => {
    const { mass: found, oracleMass, recall } = agreementOf(mass, chosen[head] ?? [], policy);
    kept.rows++;
    kept.kept += found;
    kept.oracle += oracleMass;
    kept.recall += recall;
  });
}
