/** One document in the cache, after which many arms decode token by token. */
import type { Engine } from "../engine/engine.ts";
import { tensorsOwnedBy } from "../engine/owned_tensors.ts";
import type { Session } from "../engine/session.ts";
import type { DecodeAttention } from "../engine/model.ts";
import { statisticsFor } from "../engine/pages/kv_pool.ts";
import type { PagePolicy } from "../engine/pages/page_policy.ts";
import type { Sequence } from "../engine/pages/sequence.ts";
import type { StepObserver } from "../engine/decode_batch.ts";
import type { Sequences } from "../ffi/kv_cache.ts";
import type { Counters } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { agreementOf, oraclePages } from "./oracle.ts";
import { groupMasses } from "./page_mass.ts";
import type { QualityArm, QualityPass, QualityPlan, RankPages } from "./quality_plan.ts";

/** Exact mass in the pages that an arm selected, over steps, layers and KV heads. */
export interface RetainedMass {
  rows: number;
  retained: number;
  oracle: number;
  recall: number;
}

export class QualitySession implements Disposable {
  readonly #session: Session;
  readonly #sequence: Sequence;
  readonly #mass: Tensor;
  readonly #owned: DisposableStack;
  #policy: PagePolicy | undefined;
  #length = 0;

  constructor(readonly engine: Engine, { pageSize, arms }: QualityPass, { scorers, longest }: QualityPlan) {
    using owned = new DisposableStack();
    const policy = engine.policy(arms[0]?.sparse ?? { pageSize });
    const need = { totalTokens: longest, longestTokens: longest, maxSequences: 1 };
    this.#session = owned.use(engine.openSession(policy, need, statisticsFor(scorers)));
    this.#sequence = this.#session.openSequence();
    const { loaded, pool: { shape } } = this.#session;
    const createTensor = tensorsOwnedBy(owned, loaded.device);
    this.#mass = createTensor("f32", [1, shape.numQueryHeads, shape.maxPagesPerSequence]);
    this.#owned = owned.move();
  }

  /** Prefills the document and replaces the previous one. */
  async read(ids: readonly number[], signal: AbortSignal | undefined): Promise<void> {
    this.#session.truncate(this.#sequence, 0);
    await this.#session.prefill(this.#sequence, ids, { signal });
    this.#length = ids.length;
  }

  /** Returns to the end of the document, for this arm. */
  begin({ sparse }: QualityArm): void {
    this.#session.truncate(this.#sequence, this.#length);
    this.#policy = this.engine.policy(sparse);
  }

  /** Feeds a token to the current arm. Returns the logits `[V]`. Adds exact masses to `total` if given. */
  step(id: number, arm: QualityArm, total?: RetainedMass): Float32Array<ArrayBuffer> {
    const policy = this.#policy;
    if (!policy) throw new Error("No arm has begun");
    const hooks = arm.name === "oracle"
      ? { attend: this.#oracle(policy, total, arm.rank) }
      : total && arm.name === "sparse"
      ? { observer: this.#watch(policy, total) }
      : undefined;
    return this.#session.step([this.#sequence], [id], policy, hooks).logits.readFloats();
  }

  counters(): Counters {
    return this.#session.counters();
  }

  /** Attends to the pages with the highest rank: their exact mass, unless a study has another. */
  #oracle(policy: PagePolicy, total: RetainedMass | undefined, rank?: RankPages): DecodeAttention {
    const { cache } = this.#session.pool;
    return (layer, { sequences, selecting }, q, out) => {
      const rule = policy.layers[layer];
      if (rule?.kind !== "sparse" || !selecting) {
        return cache.attend(layer, q, sequences, out, { window: rule?.kind === "window" ? rule.tokens : 0 });
      }
      const ranks = rank ? rank(cache, layer, q, this.#sequence.pages) : this.#masses(layer, q, sequences);
      const chosen = ranks.map((each) => oraclePages(each, policy));
      const { selection } = selecting;
      selection.selected.write(Int32Array.from(chosen.flat()));
      selection.counts.write(Int32Array.from(chosen, ({ length }) => length));
      cache.attend(layer, q, sequences, out, { selection });
      if (total) addMass(total, rank ? this.#masses(layer, q, sequences) : ranks, chosen, policy);
    };
  }

  /** Compares the selection of a layer with the exact masses. */
  #watch(policy: PagePolicy, total: RetainedMass): StepObserver {
    return {
      afterAttention: (layer, q, { sequences, selecting }) => {
        if (policy.layers[layer]?.kind !== "sparse" || !selecting) return;
        const masses = this.#masses(layer, q, sequences);
        const k = policy.budgetPages;
        const all = selecting.selection.selected.readInts();
        const chosen = masses.map((_, head) => Array.from(all.subarray(head * k, (head + 1) * k)));
        addMass(total, masses, chosen, policy);
      },
    };
  }

  #masses(layer: number, q: Tensor, sequences: Sequences): Float64Array[] {
    const numPages = this.#sequence.pages.length;
    return groupMasses(this.#session.pool.cache, { layer, q, sequences, mass: this.#mass, numPages });
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function addMass(
  total: RetainedMass,
  masses: readonly Float64Array[],
  chosen: readonly number[][],
  policy: PagePolicy,
): void {
  masses.forEach((mass, head) => {
    const { mass: found, oracleMass, recall } = agreementOf(mass, chosen[head] ?? [], policy);
    total.rows++;
    total.retained += found;
    total.oracle += oracleMass;
    total.recall += recall;
  });
}
