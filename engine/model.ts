import type { Device } from "../ffi/device.ts";
import type { HeadRotation, Selection } from "../ffi/cache_options.ts";
import {
  addRmsNorm,
  allGather,
  allReduceFinish,
  allReduceStart,
  argmax,
  embedding,
  fusedMatmul,
  geluMul,
  type ProductJoins,
  type ProductNorm,
  rmsNorm,
  ropeTable,
  scale,
  siluMul,
} from "../ffi/ops.ts";
import type { Tensor } from "../ffi/tensor.ts";
import { activationNeeds, Activations, type ActivationViews } from "./activations.ts";
import type { ModelConfig } from "./folder/config.ts";
import type { DecodeStep, StepObserver } from "./decode_batch.ts";
import type { EventLoopYield } from "./event_loop.ts";
import { expertNeeds, Experts } from "./experts.ts";
import { isWhole, linear } from "./linear.ts";
import { normNeeds, NormWeights } from "./norm_weights.ts";
import { needBytes, type TensorNeed } from "./owned_tensors.ts";
import type { KvPool } from "./pages/kv_pool.ts";
import { type PagePolicy, PREFILL_TILE_TOKENS } from "./pages/page_policy.ts";
import { roundedTo } from "./rounding.ts";
import type { RopeFrequencies } from "./folder/rope.ts";
import { halves, type PromptRun } from "./prompt_runs.ts";
import type { Weights } from "./weights.ts";

/** Tokens that are processed together, of one sequence or of several, one after another. i32 tensors `[T]`. */
export interface PrefillChunk {
  ids: Tensor;
  positions: Tensor;
  slots: Tensor;
  runs: readonly PromptRun[];
}

/** What the model starts from in both kinds of step. */
type Step = Pick<PrefillChunk, "ids" | "positions">;
/** Appends the keys and values of a layer to the cache, and attends. */
type Attend = (layer: number, rotation: HeadRotation, views: ActivationViews) => void;

const BLOCK_PROJECTIONS = ["qkv", "output", "gate_up", "down"] as const;

/** Tokens that go through a block together. */
interface Part {
  readonly views: ActivationViews;
  readonly attend: Attend;
  /** Whether products of the residual stream norm it, and those that end a block add to it, instead of operations of their own. */
  readonly joinsSums: boolean;
  /** What is left of the last block: see {@link finish}. */
  finish?: (() => void) | undefined;
}

/** Callbacks between the layers of a prefill chunk. */
export interface PrefillHooks {
  /** Awaited between layers. */
  yieldToEventLoop?: EventLoopYield | undefined;
  /** Called with the residual stream `[T, H]` after each layer. */
  afterLayer?: ((layer: number, hidden: Tensor) => void) | undefined;
  /** Called after a layer whose tiles selected pages, the first of them with the token at `start`. */
  afterSelection?: ((layer: number, selection: Selection, start: number) => void) | undefined;
}

/** Observes a decode step, or replaces a part of it. */
export interface DecodeHooks {
  observer?: StepObserver | undefined;
  /** Replaces the attention of the policy. */
  attend?: DecodeAttention | undefined;
  /** Called with the residual stream `[B, H]` after each layer. */
  afterLayer?: ((layer: number, hidden: Tensor) => void) | undefined;
}

/** The attention of a layer in a decode step. q, out f32 `[B, Hq, d]`. */
export type DecodeAttention = (layer: number, step: DecodeStep, q: Tensor, out: Tensor) => void;

/** Rows of logits that are computed together when all rows are requested. */
const LOGIT_ROWS = 64;

/** Shorter chunks are not split: products of few tokens take as long as those of more, and those of up to 256 round differently. */
const MIN_SPLIT_TOKENS = { cpu: 512, cuda: 1024 } as const;

/** The tensors that a forward pass ends in. @param ownVocabulary rows of the output projection that a device has */
function resultNeeds(
  { vocabSize }: ModelConfig,
  ownVocabulary: number,
  rows: number,
): { logits: TensorNeed; best: TensorNeed; ownLogits: TensorNeed | undefined } {
  return {
    logits: { dtype: "f32", shape: [rows, vocabSize] },
    best: { dtype: "i32", shape: [rows] },
    ownLogits: ownVocabulary < vocabSize ? { dtype: "f32", shape: [rows, ownVocabulary] } : undefined,
  };
}

/** Bytes that {@link Model} allocates on each device besides the weights. @param planned the weights by name @param numSequences of a step */
export function modelBytes(
  config: ModelConfig,
  planned: ReadonlyMap<string, TensorNeed>,
  { rotaryDim, invFreq }: RopeFrequencies,
  chunkTokens: number,
  localInvFreq: Float32Array | undefined,
  numSequences: number,
): number {
  const rows = Math.min(LOGIT_ROWS, chunkTokens);
  const [ownVocabulary = 0] = (planned.get("logits.weight") ?? planned.get("embedding.weight"))?.shape ?? [];
  const needs: Readonly<Record<string, TensorNeed | undefined>>[] = [
    activationNeeds(config, rotaryDim, chunkTokens),
    resultNeeds(config, ownVocabulary, rows),
    numSequences > rows ? resultNeeds(config, ownVocabulary, numSequences) : {},
    normNeeds(config, planned),
    config.moe ? expertNeeds(config, config.moe, chunkTokens) : {},
  ];
  const frequencies = 4 * (invFreq.length + (localInvFreq?.length ?? 0));
  return needs.reduce((sum, some) => sum + needBytes(some), frequencies);
}

/** The forward pass, layer by layer, one native call per operation. */
export class Model {
  readonly activations: Activations;
  #logits: Tensor;
  /** `[rows, V / members]`: the logits of a member of a group that shares the output projection; undefined without one. */
  #ownLogits: Tensor | undefined;
  #best: Tensor;
  readonly #invFreq: Tensor;
  /** Of local layers, where there are any. */
  readonly #localInvFreq: Tensor | undefined;
  readonly #norms: NormWeights;
  readonly #embeddingScale: number;
  readonly #experts: Experts | undefined;
  readonly #frequencies: RopeFrequencies;
  readonly #hasWholeProjections: boolean;
  constructor(
    readonly device: Device,
    readonly config: ModelConfig,
    readonly weights: Weights,
    frequencies: RopeFrequencies,
    chunkTokens: number,
    localInvFreq?: Float32Array,
  ) {
    this.#frequencies = frequencies;
    this.activations = new Activations(device, config, this.#frequencies.rotaryDim, chunkTokens);
    const { invFreq } = this.#frequencies;
    this.#invFreq = device.upload(new Float32Array(invFreq), [invFreq.length]);
    this.#localInvFreq = localInvFreq && device.upload(new Float32Array(localInvFreq), [localInvFreq.length]);
    this.#norms = new NormWeights(device, weights, config);
    const { embedding: factor, roundsEmbedding } = config.scales;
    this.#embeddingScale = roundsEmbedding ? roundedTo(weights.get("embedding.weight").dtype, factor) : factor;
    [this.#logits, this.#best, this.#ownLogits] = this.#makeLogits(Math.min(LOGIT_ROWS, chunkTokens));
    this.#experts = config.moe && new Experts(device, weights, config, config.moe, chunkTokens);
    this.#hasWholeProjections = !config.moe &&
      Array(config.numLayers).keys().every((layer) =>
        BLOCK_PROJECTIONS.every((name) => isWhole(weights, `layers.${layer}.${name}`))
      );
  }

  get #output(): Tensor {
    return this.weights.find("logits.weight") ?? this.weights.get("embedding.weight");
  }

  /** Rows to compute logits of at a time where all rows of a prompt have some. */
  get maxLogitRows(): number {
    return Math.min(LOGIT_ROWS, this.#logits.shape[0] ?? 1);
  }

  /** Makes room for steps of this many sequences. Recorded steps keep the memory that they were recorded with. */
  reserve(numSequences: number): void {
    if (numSequences <= (this.#logits.shape[0] ?? 0)) return;
    [this.#logits, this.#best, this.#ownLogits] = this.#makeLogits(numSequences);
  }

  #makeLogits(rows: number): [logits: Tensor, best: Tensor, ownLogits: Tensor | undefined] {
    const { device, config } = this;
    const make = ({ dtype, shape }: TensorNeed): Tensor => device.createTensor(dtype, shape);
    const { logits, best, ownLogits } = resultNeeds(config, this.#output.shape[0] ?? 0, rows);
    return [make(logits), make(best), ownLogits && make(ownLogits)];
  }

  /** Appends a chunk to the cache. Returns the normed hidden states `[T, H]`. */
  async prefill(pool: KvPool, policy: PagePolicy, chunk: PrefillChunk, hooks: PrefillHooks = {}): Promise<Tensor> {
    const views = this.#start(chunk);
    this.#norm(views, -1);
    let done = 0;
    const parts = this.#split(chunk).map((some): Part => {
      const count = some.ids.shape[0] ?? 1;
      const own = this.activations.views(count, done);
      done += count;
      const reads = promptReads(some.runs, own);
      const attend: Attend = (layer, rotation, { q, k, v }) => {
        pool.cache.appendRotated(layer, rotation, q, k, v, some.slots);
        for (const read of reads) attendPrompt(pool, policy, layer, read, hooks.afterSelection);
      };
      return { views: own, attend, joinsSums: false };
    });
    try {
      for (let layer = 0; layer < this.config.numLayers; layer++) {
        this.#layer(layer, parts);
        if (hooks.afterLayer) {
          finish(parts);
          hooks.afterLayer(layer, views.hidden);
        }
        await hooks.yieldToEventLoop?.();
      }
    } finally {
      finish(parts);
    }
    return views.normed;
  }

  /** Appends one token per sequence to the cache. Returns the logits `[B, V]`. */
  decode(pool: KvPool, policy: PagePolicy, step: DecodeStep, hooks: DecodeHooks = {}): Tensor {
    const views = this.#start(step);
    const decodeAttention = hooks.attend ?? policyAttention(pool, policy);
    // Hooks read the rotated queries, which a joined call leaves undefined.
    const joined = !hooks.attend && !hooks.observer;
    const attend: Attend = (layer, rotation, views) => {
      if (joined) return appendAttend(pool, policy, layer, step, rotation, views);
      const { q, k, v, attended } = views;
      pool.cache.appendRotated(layer, rotation, q, k, v, step.slots);
      decodeAttention(layer, step, q, attended);
      hooks.observer?.afterAttention(layer, q, step);
    };
    const joinsSums = this.#joinsSums(step.ids.shape[0] ?? 1);
    const part: Part = { views, attend, joinsSums };
    if (!joinsSums) this.#norm(views, -1);
    for (let layer = 0; layer < this.config.numLayers; layer++) {
      this.#layer(layer, [part]);
      finish([part]);
      hooks.afterLayer?.(layer, views.hidden);
    }
    return joinsSums ? this.#project(views.hidden, this.#withNorm("norm", views)) : this.logits(views.normed);
  }

  /** Logits `[T, V]` of up to {@link maxLogitRows}, or as many as are reserved, normed hidden states. */
  logits(hidden: Tensor): Tensor {
    return this.#project(hidden);
  }

  #project(x: Tensor, joins: ProductJoins = {}): Tensor {
    const rows = this.#logits.rows(0, x.shape[0] ?? 1);
    const own = this.#ownLogits?.rows(0, rows.shape[0] ?? 1);
    fusedMatmul(this.device, x, this.#output, undefined, own ?? rows, joins);
    if (own) allGather(this.device, own, rows);
    scaleUnlessOne(this.device, rows, this.config.scales.logits);
    return rows;
  }

  /** The most likely token of every row of logits, i32 `[T]`, -1 if the logits are not finite. @param best where they go */
  best(logits: Tensor, best: Tensor = this.#best.rows(0, logits.shape[0] ?? 1)): Tensor {
    argmax(this.device, logits, best);
    return best;
  }

  /** Whether a decode step can be recorded: it must not read back, as the routing of experts does. */
  get canRecord(): boolean {
    return this.#experts === undefined && this.device.records;
  }

  /** Whether a decode step can start before the host has read the token of the step before. */
  get canRunAhead(): boolean {
    return this.canRecord && this.device.members === 1;
  }

  #start(step: Step): ActivationViews {
    const views = this.activations.views(step.ids.shape[0] ?? 1);
    const { attentionScaling: scale, positionBeta, positionOrigin } = this.#frequencies;
    embedding(this.device, step.ids, this.weights.get("embedding.weight"), views.hidden);
    scaleUnlessOne(this.device, views.hidden, this.#embeddingScale);
    ropeTable(this.device, step.positions, this.#invFreq, { scale, positionBeta: 0, positionOrigin: 1 }, views.keyRope);
    if (positionBeta !== 0) {
      ropeTable(this.device, step.positions, this.#invFreq, { scale, positionBeta, positionOrigin }, views.queryRope);
    }
    if (this.#localInvFreq && views.localRope) {
      const plain = { scale: 1, positionBeta: 0, positionOrigin: 1 };
      ropeTable(this.device, step.positions, this.#localInvFreq, plain, views.localRope);
    }
    return views;
  }

  /** A chunk in halves where devices share the model, so that one half is computed while the sums of the other travel. */
  #split(chunk: PrefillChunk): PrefillChunk[] {
    const { ids, positions, slots, runs } = chunk;
    const [count = 1] = ids.shape;
    if (this.device.members === 1 || this.#experts || count < MIN_SPLIT_TOKENS[this.device.backend]) return [chunk];
    const [first, second] = halves(runs, count / 2);
    const middle = first.reduce((sum, run) => sum + run.count, 0);
    if (middle === 0) return [chunk];
    const part = (from: number, tokens: number, own: PromptRun[]): PrefillChunk => ({
      ...{ ids: ids.rows(from, tokens), positions: positions.rows(from, tokens), slots: slots.rows(from, tokens) },
      runs: own,
    });
    return [part(0, middle, first), part(middle, count - middle, second)];
  }

  /**
   * Whether a decode step of so many tokens joins its sums ({@link Part}). Not where something else comes between: sums over devices, norms
   * behind a block, a factor, experts; and for several tokens not where a projection is several products, each of which would norm them all.
   */
  #joinsSums(numTokens: number): boolean {
    const { postNorms, scales } = this.config;
    const isPlain = this.device.members === 1 && !postNorms && scales.residual === 1 && !this.#experts;
    return isPlain && (numTokens === 1 || this.#hasWholeProjections);
  }

  /** The norm of the residual stream after a layer, for the next one or for the logits. */
  #norm({ hidden, normed }: ActivationViews, layer: number): void {
    rmsNorm(this.device, hidden, this.#normBehind(layer), this.config.rmsNormEps, normed);
  }

  /** From the normed hidden states of the previous layer to those for the next one, once all parts are finished. */
  #layer(layer: number, parts: readonly Part[]): void {
    const name = `layers.${layer}`;
    for (const part of parts) {
      finish([part]);
      this.#attention(layer, name, part);
    }
    for (const part of parts) {
      finish([part]);
      this.#feedForward(layer, name, part);
    }
  }

  #attention(layer: number, name: string, part: Part): void {
    const { device, weights } = this;
    const { views, attend } = part;
    const { qkv, attendedFlat } = views;
    const { x, joins } = this.#blockInput(`${name}.attention_norm`, part);
    linear(device, weights, `${name}.qkv`, x, qkv, joins);
    attend(layer, this.#rotation(layer, name, views), views);
    const nextNorm = this.#norms.get(`${name}.mlp_norm`);
    this.#endBlock(`${name}.output`, attendedFlat, part, `${name}.attention_post_norm`, nextNorm);
  }

  /** What a block multiplies first: the normed hidden states, or the residual stream with the norm for its product to take in. */
  #blockInput(norm: string, part: Part): { x: Tensor; joins: ProductJoins } {
    const { views } = part;
    return part.joinsSums ? { x: views.hidden, joins: this.#withNorm(norm, views) } : { x: views.normed, joins: {} };
  }

  /** The last product of a block, and its sum into the residual stream: in the product, or later. */
  #endBlock(name: string, x: Tensor, part: Part, postNorm: string, nextNorm: Tensor): void {
    const { device, weights } = this;
    const { hidden, delta } = part.views;
    if (part.joinsSums) {
      const next = this.#productNorm(nextNorm, part.views);
      return linear(device, weights, name, x, hidden, { ending: { kind: "add", scratch: delta }, next });
    }
    linear(device, weights, name, x, delta);
    this.#joinLater(postNorm, part, nextNorm);
  }

  /** A product of the residual stream, normed. */
  #withNorm(name: string, views: ActivationViews): ProductJoins {
    return { norm: this.#productNorm(this.#norms.get(name), views) };
  }

  #productNorm(weight: Tensor, { normed }: ActivationViews): ProductNorm {
    return { weight, eps: this.config.rmsNormEps, scratch: normed };
  }

  /** delta = down(activation(gate(normed)) * up(normed)), or experts: the block behind attention. */
  #feedForward(layer: number, name: string, part: Part): void {
    const { device, weights, config } = this;
    const { gateUp, gate, up, product } = part.views;
    if (this.#experts && config.moe?.sparseLayers[layer]) {
      this.#experts.addTo(name, part.views);
      return this.#norm(part.views, layer);
    }
    const isSilu = config.hiddenAct === "silu";
    const { x, joins } = this.#blockInput(`${name}.mlp_norm`, part);
    if (isWhole(weights, `${name}.gate_up`)) {
      const ending = { kind: isSilu ? "silu_mul" : "gelu_mul", scratch: gateUp } as const;
      linear(device, weights, `${name}.gate_up`, x, product, { ...joins, ending });
    } else {
      linear(device, weights, `${name}.gate_up`, x, gateUp, joins);
      (isSilu ? siluMul : geluMul)(device, gate, up, product);
    }
    this.#endBlock(`${name}.down`, product, part, `${name}.mlp_post_norm`, this.#normBehind(layer));
  }

  /** Starts to sum what a block computed over the devices. To finish the part adds it to the residual stream, then norms that for its next reader. */
  #joinLater(postNorm: string, part: Part, nextNorm: Tensor): void {
    const { device, config: { postNorms, scales, rmsNormEps: eps } } = this;
    const { hidden, normed, delta } = part.views;
    allReduceStart(device, delta);
    part.finish = () => {
      allReduceFinish(device, delta);
      if (postNorms) rmsNorm(device, delta, this.#norms.get(postNorm), eps, delta);
      scaleUnlessOne(device, delta, scales.residual);
      addRmsNorm(device, hidden, delta, nextNorm, eps, normed);
    };
  }

  #rotation(layer: number, name: string, { queryRope, keyRope, localRope, noRope }: ActivationViews): HeadRotation {
    const { qkNorm, rmsNormEps: eps, rotations } = this.config;
    const norm = qkNorm
      ? { query: this.#norms.get(`${name}.q_norm`), key: this.#norms.get(`${name}.k_norm`), eps }
      : undefined;
    const own = rotations[layer] === "local" ? localRope : rotations[layer] === "none" ? noRope : undefined;
    if (own) return { norm, queryTable: own, keyTable: own };
    return { norm, queryTable: this.#frequencies.positionBeta === 0 ? keyRope : queryRope, keyTable: keyRope };
  }

  /** The norm after a layer: the first one of the next layer, or the final norm. */
  #normBehind(layer: number): Tensor {
    const next = layer + 1;
    return this.#norms.get(next < this.config.numLayers ? `layers.${next}.attention_norm` : "norm");
  }
}

/** Ends what the last block of each part began. */
function finish(parts: readonly Part[]): void {
  for (const part of parts) {
    part.finish?.();
    part.finish = undefined;
  }
}

function scaleUnlessOne(device: Device, x: Tensor, factor: number): void {
  if (factor !== 1) scale(device, x, factor);
}

/** A run with the rows of its tokens in q and in the attended values, f32 `[T, Hq, d]`. */
interface PromptRead extends PromptRun {
  q: Tensor;
  attended: Tensor;
}

function promptReads(runs: readonly PromptRun[], { q, attended }: ActivationViews): PromptRead[] {
  let done = 0;
  return runs.map((run) => {
    const first = done;
    done += run.count;
    return { ...run, q: q.rows(first, run.count), attended: attended.rows(first, run.count) };
  });
}

/** Attention of a run, over the pages that its tiles select where they do. */
function attendPrompt(
  pool: KvPool,
  policy: PagePolicy,
  layer: number,
  { start, pageTable, selection, q, attended }: PromptRead,
  afterSelection: PrefillHooks["afterSelection"],
): void {
  const { prefill } = policy;
  if (!selection || !prefill?.layers[layer]) {
    pool.cache.attendPrefill(layer, start, q, pageTable, attended, { window: windowOf(policy, layer) });
    return;
  }
  const options = { ...policy, recentPages: prefill.recentPages, tileTokens: PREFILL_TILE_TOKENS };
  pool.cache.choosePromptPages(layer, start, q, pageTable, selection, options);
  pool.cache.attendPrefillSparse(layer, start, q, pageTable, selection, attended, options);
  afterSelection?.(layer, selection, start);
}

function windowOf(policy: PagePolicy, layer: number): number {
  const rule = policy.layers[layer];
  return rule?.kind === "window" ? rule.tokens : 0;
}

/** What a step selects pages with in a layer, if it selects. */
function selectionOf(policy: PagePolicy, layer: number, { selecting }: DecodeStep): DecodeStep["selecting"] {
  return policy.layers[layer]?.kind === "sparse" ? selecting : undefined;
}

/** Append and {@link policyAttention} in one call. */
function appendAttend(
  { cache }: KvPool,
  policy: PagePolicy,
  layer: number,
  step: DecodeStep,
  rotation: HeadRotation,
  { q, k, v, attended }: ActivationViews,
): void {
  const heads = { q, k, v, slots: step.slots };
  const selection = selectionOf(policy, layer, step);
  if (selection) {
    cache.appendSparseAttention(layer, rotation, heads, step.sequences, selection, attended, policy);
  } else {
    cache.appendAttend(layer, rotation, heads, step.sequences, attended, { window: windowOf(policy, layer) });
  }
}

/** Attention over the pages that the policy selects for a layer. */
function policyAttention(pool: KvPool, policy: PagePolicy): DecodeAttention {
  return (layer, step, q, out) => {
    const selection = selectionOf(policy, layer, step);
    if (selection) {
      pool.cache.attendSparse(layer, q, step.sequences, selection, out, policy);
    } else {
      pool.cache.attend(layer, q, step.sequences, out, { window: windowOf(policy, layer) });
    }
  };
}
