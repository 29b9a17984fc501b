import type { Device } from "../ffi/device.ts";
import { deviceLabel } from "./devices.ts";
import { PagesiftError } from "./errors.ts";
import type { ModelConfig } from "./folder/config.ts";
import { type RopeFrequencies, ropeFrequencies } from "./folder/rope.ts";
import { Model, modelBytes } from "./model.ts";
import type { TensorNeed } from "./owned_tensors.ts";
import type { KvFormat } from "./pages/kv_type.ts";
import { MAX_BATCH } from "./request.ts";
import type { EngineFacts } from "./run_stats.ts";
import type { SavedPrompts } from "./saved_prompts.ts";
import type { Weights } from "./weights.ts";

/** Tokens per prefill chunk: a GPU requires more to be busy. */
const CHUNK_TOKENS = { cpu: 512, cuda: 2048 } as const;

/** Options of {@link LoadedModel.create}. */
export interface LoadedModelOptions {
  /** Tokens of the context that the model was trained for, which its rotation depends on. Default: the config's. */
  trainedContext?: number;
  /** Sequences that decode together at most. Default {@link MAX_BATCH}. */
  maxBatch?: number;
}

/** The rotations of a forward pass, and the tokens that it is for at most. */
function forwardPass(
  backend: Device["backend"],
  config: ModelConfig,
  { trainedContext = config.maxContext, maxBatch = MAX_BATCH }: LoadedModelOptions,
): { frequencies: RopeFrequencies; local: Float32Array | undefined; maxTokens: number } {
  const { rope, localRope, headDim, maxContext } = config;
  const chunkTokens = Math.min(CHUNK_TOKENS[backend], maxContext);
  return {
    frequencies: ropeFrequencies(rope, headDim, trainedContext, maxContext),
    local: localRope && ropeFrequencies(localRope, headDim, trainedContext, maxContext).invFreq,
    maxTokens: Math.max(maxBatch, chunkTokens),
  };
}

/** What a model of {@link LoadedModel.create} allocates besides the weights for steps of so many sequences: bytes, and the tokens of a forward pass. */
export function loadedModelNeeds(
  backend: Device["backend"],
  config: ModelConfig,
  planned: ReadonlyMap<string, TensorNeed>,
  numSequences: number,
  options: LoadedModelOptions = {},
): { bytes: number; maxTokens: number } {
  const { frequencies, local, maxTokens } = forwardPass(backend, config, options);
  return { bytes: modelBytes(config, planned, frequencies, maxTokens, local, numSequences), maxTokens };
}

/**
 * A model whose weights are on a device. Its activations serve one forward pass at a time, so everything that runs it takes
 * {@link LoadedModel.lock} first.
 */
export class LoadedModel {
  readonly facts: EngineFacts;
  /** Where its prompts are saved, if they are. */
  savedPrompts: SavedPrompts | undefined;
  #busy = false;

  private constructor(
    readonly device: Device,
    readonly model: Model,
    /** The model's config, with the context in force. */
    readonly config: ModelConfig,
    /** The types of its KV caches. */
    readonly kv: KvFormat,
  ) {
    this.facts = { device: deviceLabel(device), weightBytes: model.weights.bytes, maxContext: config.maxContext };
  }

  /** Adds the forward pass to weights that are on the device. */
  static create(
    device: Device,
    config: ModelConfig,
    weights: Weights,
    kv: KvFormat,
    options: LoadedModelOptions = {},
  ): LoadedModel {
    const { frequencies, local, maxTokens } = forwardPass(device.backend, config, options);
    const model = new Model(device, config, weights, frequencies, maxTokens, local);
    return new LoadedModel(device, model, config, kv);
  }

  /** Whether the device scores groups of pages before pages. */
  get scoresGroups(): boolean {
    return this.device.backend === "cuda";
  }

  /** Reserves the forward pass until the result is disposed. @throws {PagesiftError} of kind "usage" while another holder has it */
  lock(): Disposable {
    if (this.#busy) {
      throw new PagesiftError("usage", "The model is busy with another run; wait for it, or load a second engine");
    }
    this.#busy = true;
    return {
      [Symbol.dispose]: () => {
        this.#busy = false;
      },
    };
  }

  /** Waits for the device and frees everything on it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.device.closed) return;
    await this.device.wait();
    this.device.close();
  }
}
