import type { Device } from "../ffi/device.ts";
import { allReduce, embedding, routeExperts, scatterAdd, siluMul } from "../ffi/ops.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { ActivationViews } from "./activations.ts";
import type { ModelConfig, MoeConfig } from "./folder/config.ts";
import { linear } from "./linear.ts";
import type { TensorNeed } from "./owned_tensors.ts";
import type { Weights } from "./weights.ts";

/** The tokens of one expert, and its weight for each of them. */
interface Assignment {
  rows: number[];
  shares: number[];
}

/** Sorts a routing `[T, k]` by expert. */
export function groupByExpert(experts: Int32Array, shares: Float32Array, numPerToken: number): Map<number, Assignment> {
  const groups = new Map<number, Assignment>();
  experts.forEach((expert, index) => {
    const group = groups.get(expert) ?? { rows: [], shares: [] };
    group.rows.push(Math.floor(index / numPerToken));
    group.shares.push(shares[index] ?? 0);
    groups.set(expert, group);
  });
  return groups;
}

type ExpertTensors = "logits" | "chosen" | "shares" | "gathered" | "rows" | "rowShares";

/** The tensors of {@link Experts}. */
export function expertNeeds(
  { hiddenSize }: ModelConfig,
  moe: MoeConfig,
  chunkTokens: number,
): Record<ExpertTensors, TensorNeed> {
  return {
    logits: { dtype: "f32", shape: [chunkTokens, moe.numExperts] },
    chosen: { dtype: "i32", shape: [chunkTokens, moe.numExpertsPerToken] },
    shares: { dtype: "f32", shape: [chunkTokens, moe.numExpertsPerToken] },
    gathered: { dtype: "f32", shape: [chunkTokens, hiddenSize] },
    rows: { dtype: "i32", shape: [chunkTokens] },
    rowShares: { dtype: "f32", shape: [chunkTokens] },
  };
}

/** A feed-forward block of experts, of which every token uses a few. The routing is read back once per layer to group tokens by expert. */
export class Experts {
  readonly #moe: MoeConfig;
  readonly #logits: Tensor;
  readonly #chosen: Tensor;
  readonly #shares: Tensor;
  /** `[C, H]`: the tokens of one expert */
  readonly #gathered: Tensor;
  readonly #rows: Tensor;
  readonly #rowShares: Tensor;

  constructor(
    readonly device: Device,
    readonly weights: Weights,
    config: ModelConfig,
    moe: MoeConfig,
    chunkTokens: number,
  ) {
    this.#moe = moe;
    const needs = expertNeeds(config, moe, chunkTokens);
    const make = ({ dtype, shape }: TensorNeed): Tensor => device.createTensor(dtype, shape);
    this.#logits = make(needs.logits);
    this.#chosen = make(needs.chosen);
    this.#shares = make(needs.shares);
    this.#gathered = make(needs.gathered);
    this.#rows = make(needs.rows);
    this.#rowShares = make(needs.rowShares);
  }

  /** hidden += the weighted sum of the selected experts' outputs for normed. */
  addTo(name: string, views: ActivationViews): void {
    const tokens = views.hidden.shape[0] ?? 1;
    const [logits, chosen, shares] = [this.#logits, this.#chosen, this.#shares].map((tensor) => tensor.rows(0, tokens));
    if (!logits || !chosen || !shares) return;
    linear(this.device, this.weights, `${name}.router`, views.normed, logits);
    routeExperts(this.device, logits, this.#moe.normTopkProb, chosen, shares);
    const groups = groupByExpert(chosen.readInts(), shares.readFloats(), this.#moe.numExpertsPerToken);
    for (const [expert, group] of groups) this.#addExpert(`${name}.experts.${expert}`, group, views);
  }

  #addExpert(name: string, group: Assignment, views: ActivationViews): void {
    const { device, weights } = this;
    const count = group.rows.length;
    const width = this.#moe.intermediateSize;
    const rows = this.#rows.rows(0, count);
    const shares = this.#rowShares.rows(0, count);
    rows.write(Int32Array.from(group.rows));
    shares.write(Float32Array.from(group.shares));
    const [gathered, gateUp] = [this.#gathered.rows(0, count), views.gateUp.rows(0, count)];
    const product = views.product.rows(0, count).columns(0, width);
    const answer = views.delta.rows(0, count);
    embedding(device, rows, views.normed, gathered);
    linear(device, weights, `${name}.gate_up`, gathered, gateUp.columns(0, 2 * width));
    siluMul(device, gateUp.columns(0, width), gateUp.columns(width, width), product);
    linear(device, weights, `${name}.down`, product, answer);
    allReduce(device, answer);
    scatterAdd(device, answer, rows, shares, views.hidden);
  }
}
