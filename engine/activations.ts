import type { Device } from "../ffi/device.ts";
import type { Tensor } from "../ffi/tensor.ts";
import type { ModelConfig } from "./folder/config.ts";
import type { TensorNeed } from "./owned_tensors.ts";

/** Views of the memory between operations, for T tokens. All f32. */
export interface ActivationViews {
  /** `[T, H]`, the residual stream */
  hidden: Tensor;
  /** `[T, H]` */
  normed: Tensor;
  /** `[T, (Hq + 2 Hk) d]`; `q`, `k`, `v` are its columns, as `[T, heads, d]` */
  qkv: Tensor;
  q: Tensor;
  k: Tensor;
  v: Tensor;
  /** `[T, Hq, d]`, and the same memory as `[T, Hq d]` */
  attended: Tensor;
  attendedFlat: Tensor;
  /** `[T, 2 I]`; `gate` and `up` are its halves */
  gateUp: Tensor;
  gate: Tensor;
  up: Tensor;
  /** `[T, I]` */
  product: Tensor;
  /** `[T, H]`, the result of a block, which is added to the residual stream */
  delta: Tensor;
  /** `[T, r]`, cosines and sines for queries and for keys */
  queryRope: Tensor;
  keyRope: Tensor;
  /** `[T, r]`, of layers with a rotation of their own and without one; only models with such layers have them */
  localRope: Tensor | undefined;
  noRope: Tensor | undefined;
}

type Whole = Omit<ActivationViews, "q" | "k" | "v" | "attended" | "gate" | "up">;

/** The tensors of {@link Activations}; those are undefined that the model does not use. */
export function activationNeeds(
  config: ModelConfig,
  rotaryDim: number,
  maxTokens: number,
): { [K in keyof Whole]: undefined extends Whole[K] ? TensorNeed | undefined : TensorNeed } {
  const { hiddenSize, numQueryHeads, numKvHeads, headDim, rotations } = config;
  const intermediate = Math.max(config.intermediateSize, config.moe?.intermediateSize ?? 0); // experts use the same memory
  const floats = (width: number): TensorNeed => ({ dtype: "f32", shape: [maxTokens, width] });
  return {
    hidden: floats(hiddenSize),
    normed: floats(hiddenSize),
    qkv: floats((numQueryHeads + 2 * numKvHeads) * headDim),
    attendedFlat: floats(numQueryHeads * headDim),
    gateUp: floats(2 * intermediate),
    product: floats(intermediate),
    delta: floats(hiddenSize),
    queryRope: floats(rotaryDim),
    keyRope: floats(rotaryDim),
    localRope: rotations.includes("local") ? floats(rotaryDim) : undefined,
    noRope: rotations.includes("none") ? floats(rotaryDim) : undefined,
  };
}

/** Scratch memory of a forward pass of up to `maxTokens` tokens. */
export class Activations {
  readonly #full: ActivationViews;
  readonly #views = new Map<string, ActivationViews>();
  readonly #config: ModelConfig;

  constructor(device: Device, config: ModelConfig, rotaryDim: number, readonly maxTokens: number) {
    this.#config = config;
    const needs = activationNeeds(config, rotaryDim, maxTokens);
    const make = ({ dtype, shape }: TensorNeed): Tensor => device.createTensor(dtype, shape);
    this.#full = this.#cut({
      hidden: make(needs.hidden),
      normed: make(needs.normed),
      qkv: make(needs.qkv),
      attendedFlat: make(needs.attendedFlat),
      gateUp: make(needs.gateUp),
      product: make(needs.product),
      delta: make(needs.delta),
      queryRope: make(needs.queryRope),
      keyRope: make(needs.keyRope),
      localRope: needs.localRope && make(needs.localRope),
      noRope: needs.noRope && identityTable(device, maxTokens, rotaryDim),
    });
  }

  /** Views for `numTokens` tokens from row `first` on. They are cached, because the same few sizes recur at every step. */
  views(numTokens: number, first = 0): ActivationViews {
    const key = `${first} ${numTokens}`;
    let views = this.#views.get(key);
    if (!views) {
      const rows = (tensor: Tensor): Tensor => tensor.rows(first, numTokens);
      const { hidden, normed, qkv, attendedFlat, gateUp, product, delta, queryRope, keyRope, localRope, noRope } =
        this.#full;
      views = this.#cut({
        ...{ hidden: rows(hidden), normed: rows(normed), qkv: rows(qkv), attendedFlat: rows(attendedFlat) },
        ...{ gateUp: rows(gateUp), product: rows(product), delta: rows(delta) },
        ...{ queryRope: rows(queryRope), keyRope: rows(keyRope) },
        ...{ localRope: localRope && rows(localRope), noRope: noRope && rows(noRope) },
      });
      this.#views.set(key, views);
    }
    return views;
  }

  #cut(whole: Whole): ActivationViews {
    const { numQueryHeads, numKvHeads, headDim } = this.#config;
    const [queryWidth, keyWidth] = [numQueryHeads * headDim, numKvHeads * headDim];
    const intermediate = whole.product.shape[1] ?? 0;
    return {
      ...whole,
      q: whole.qkv.columns(0, queryWidth).heads(numQueryHeads),
      k: whole.qkv.columns(queryWidth, keyWidth).heads(numKvHeads),
      v: whole.qkv.columns(queryWidth + keyWidth, keyWidth).heads(numKvHeads),
      attended: whole.attendedFlat.heads(numQueryHeads),
      gate: whole.gateUp.columns(0, intermediate),
      up: whole.gateUp.columns(intermediate, intermediate),
    };
  }
}

/** A rotation that changes nothing, whatever the position: cosines of 1, then sines of 0, `[T, r]`. */
function identityTable(device: Device, maxTokens: number, rotaryDim: number): Tensor {
  const numbers = Float32Array.from({ length: maxTokens * rotaryDim }, (_, i) => i % rotaryDim < rotaryDim / 2 ? 1 : 0);
  return device.upload(numbers, [maxTokens, rotaryDim]);
}
