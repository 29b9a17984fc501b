import type { Device } from "../ffi/device.ts";
import { openCheckpoint } from "./folder/checkpoint.ts";
import { type ModelConfig, readGenerationConfig, readModelConfig } from "./folder/config.ts";
import { type DeviceChoice, deviceLabel, openDevice } from "./devices.ts";
import { PagesiftError } from "./errors.ts";
import { Generation, longestTokens } from "./generation.ts";
import { cacheShape, KvPool, type PoolNeed } from "./pages/kv_pool.ts";
import { checkMaxTokens, limitContext } from "./folder/limits.ts";
import { checkCacheFits, checkWeightsFit, engineError } from "./memory.ts";
import { Model } from "./model.ts";
import { type PagePolicy, resolvePolicy } from "./pages/page_policy.ts";
import { breather, Prefill } from "./prefill.ts";
import { DEFAULT_MAX_TOKENS, Request } from "./request.ts";
import { ropeFrequencies } from "./folder/rope.ts";
import { emptyStats, type EngineFacts, RunStats } from "./run_stats.ts";
import { type ModelSparsity, readSparsity, withModelDefaults } from "./folder/sparsity_file.ts";
import { Tokenizer } from "./text/tokenizer.ts";
import type {
  BatchPiece,
  EngineStats,
  GenerateOptions,
  GenerateRequest,
  Notice,
  Piece,
  PrefillProgress,
  SparseOptions,
} from "./types.ts";
import { planWeights, type WeightDType } from "./folder/weight_plan.ts";
import { tieEqualWeights } from "./folder/tied_weights.ts";
import { weightBytes, Weights } from "./weights.ts";

/** Tokens that prefill takes in at once: a GPU needs more to be busy. */
const CHUNK_TOKENS = { cpu: 512, cuda: 2048 } as const;
/** Requests of a batch that decode together. */
const MAX_BATCH = 16;

export interface EngineOptions {
  /** Default `auto`: CUDA when a device answers, else the CPU. */
  device?: DeviceChoice;
  /** Tokens; at most what the model was made for, which is the default. */
  maxContext?: number;
  /** Defaults for every generation. */
  sparse?: SparseOptions;
  /** CPU threads. Default: one a core. */
  threads?: number;
  /** Ends loading. */
  signal?: AbortSignal;
}

/** Options of a whole batch. */
export interface BatchOptions extends Pick<GenerateOptions, "signal" | "sparse"> {
  onPrefill?: (progress: PrefillProgress, index: number) => void;
}

/** A loaded model that generates text. One generation runs at a time. */
export class Engine implements AsyncDisposable {
  #pool: KvPool | undefined;
  #stats: EngineStats;
  #runStats: RunStats | undefined;
  #busy = false;

  private constructor(
    readonly device: Device,
    readonly model: Model,
    /** The model's config, with the context in force. */
    readonly config: ModelConfig,
    readonly tokenizer: Tokenizer,
    readonly sparse: SparseOptions,
    readonly dtype: WeightDType,
    readonly facts: EngineFacts,
    /** What the model's `sparsity.json` says. */
    readonly sparsity: ModelSparsity | undefined,
    /** What people should know about the model and the device, such as what is ignored. */
    readonly notices: readonly Notice[],
  ) {
    this.#stats = emptyStats(facts);
  }

  /**
   * Loads a Hugging Face model folder.
   *
   * @throws {PagesiftError} of kind "model", "device", "memory" or "usage"
   */
  static async load(folder: string, options: EngineOptions = {}): Promise<Engine> {
    const read = await readModelConfig(folder);
    const { eosTokenIds } = await readGenerationConfig(folder);
    const config = limitContext({ ...read, eosTokenIds }, options.maxContext);
    const sparsity = await readSparsity(folder);
    const sparse = withModelDefaults(sparsity?.defaults ?? {}, options.sparse ?? {});
    resolvePolicy(sparse, config.slidingWindows);
    const planned = planWeights(config, (await openCheckpoint(folder)).tensors);
    const plan = await tieEqualWeights(config, planned, options.signal);
    const tokenizer = await Tokenizer.load(folder, { vocabSize: config.vocabSize });
    const { device, notices } = openDevice(options.device ?? "auto", options.threads);
    try {
      checkWeightsFit(device, weightBytes(plan));
      const weights = await Weights.load(device, plan, options.signal);
      // The rotation depends on the context the model was made for, not on the one in force.
      const frequencies = ropeFrequencies(read.rope, read.headDim, read.maxContext);
      const stepTokens = Math.max(MAX_BATCH, Math.min(CHUNK_TOKENS[device.describe().backend], config.maxContext));
      const model = new Model(device, config, weights, frequencies, stepTokens);
      const facts = { device: deviceLabel(device), weightBytes: weights.bytes, maxContext: config.maxContext };
      return new Engine(device, model, config, tokenizer, sparse, plan.dtype, facts, sparsity, [
        ...plan.notices,
        ...notices,
      ]);
    } catch (error) {
      device.close();
      throw engineError(error);
    }
  }

  /** What the latest generation did. */
  get stats(): EngineStats {
    return this.#runStats ? this.#runStats.snapshot() : this.#stats;
  }

  /** The page policy of this model and device under the engine's options and these. @throws {PagesiftError} of kind "usage" */
  policy(sparse: SparseOptions = {}): PagePolicy {
    const scoresGroups = this.device.describe().backend === "cuda";
    return resolvePolicy(withModelDefaults(this.sparse, sparse), this.config.slidingWindows, scoresGroups);
  }

  /**
   * Logits of every position, `[ids.length, vocabSize]`, from a dense prefill.
   *
   * @throws {PagesiftError} of kind "usage", "context", "memory" or "device"
   */
  async logits(ids: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
    this.#checkPrompt(ids);
    using _lock = this.#lock();
    const policy = this.policy({ mode: "off" });
    try {
      const pool = this.#openPool(policy, { totalTokens: ids.length, longestTokens: ids.length, maxSequences: 1 });
      return await this.#prefillLogits(ids, pool, policy);
    } catch (error) {
      throw engineError(error);
    }
  }

  async #prefillLogits(ids: readonly number[], pool: KvPool, policy: PagePolicy): Promise<Float32Array<ArrayBuffer>> {
    const prefill = new Prefill(this.model, pool, policy);
    const sequence = pool.openSequence();
    const out = new Float32Array(ids.length * this.config.vocabSize);
    try {
      await prefill.run(sequence, ids, breather(undefined), (hidden, done) => {
        const rows = hidden.shape[0] ?? 0;
        for (let first = 0; first < rows; first += this.model.maxLogitRows) {
          const count = Math.min(this.model.maxLogitRows, rows - first);
          out.set(
            this.model.logits(hidden.rows(first, count)).readFloats(),
            (done - rows + first) * this.config.vocabSize,
          );
        }
      });
    } finally {
      sequence.release();
      prefill.close();
    }
    return out;
  }

  /**
   * Generates from a text or from token ids; pieces arrive as their text becomes whole.
   *
   * @throws {PagesiftError} of kind "usage", "context", "memory", "device" or "numeric"
   */
  async *generate(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<Piece> {
    const { signal, sparse, onPrefill, ...request } = options;
    const batch = {
      ...(signal && { signal }),
      ...(sparse && { sparse }),
      ...(onPrefill && { onPrefill }),
    };
    for await (const { index: _index, ...piece } of this.generateBatch([{ prompt, options: request }], batch)) {
      yield piece;
    }
  }

  /** Generates for several requests together; their pieces arrive interleaved. */
  async *generateBatch(requests: readonly GenerateRequest[], options: BatchOptions = {}): AsyncGenerator<BatchPiece> {
    const policy = this.policy(options.sparse);
    const prompts = requests.map(({ prompt }) =>
      typeof prompt === "string" ? this.tokenizer.encode(prompt) : [...prompt]
    );
    prompts.forEach((ids) => this.#checkPrompt(ids));
    if (requests.length === 0) return;
    using _lock = this.#lock();
    try {
      yield* this.#run(requests, prompts, policy, options);
    } catch (error) {
      throw engineError(error);
    }
  }

  async *#run(
    requests: readonly GenerateRequest[],
    prompts: number[][],
    policy: PagePolicy,
    { signal, onPrefill }: BatchOptions,
  ): AsyncGenerator<BatchPiece> {
    const pool = this.#openPool(policy, this.#need(requests, prompts));
    const limits = { eosTokenIds: this.config.eosTokenIds, maxContext: this.config.maxContext };
    const running = requests.map(({ prompt, options: own = {} }, index) => {
      checkMaxTokens(own.maxTokens);
      return new Request(
        index,
        prompts[index] ?? [],
        own,
        this.tokenizer.stream(typeof prompt === "string" ? prompts[index] : []),
        limits,
        pool.openSequence(),
      );
    });
    const stats = this.#runStats = new RunStats(this.facts, pool, policy);
    yield* new Generation({ model: this.model, pool, policy, stats, signal, onPrefill }, running).run();
    this.#stats = stats.snapshot();
  }

  #need(requests: readonly GenerateRequest[], prompts: readonly number[][]): PoolNeed {
    const { maxContext } = this.config;
    const tokens = requests.map(({ options }, index) =>
      longestTokens({
        promptIds: prompts[index] ?? [],
        maxTokens: options?.maxTokens ?? DEFAULT_MAX_TOKENS,
        limits: { maxContext },
      })
    ).sort((a, b) => b - a);
    const together = tokens.slice(0, MAX_BATCH);
    return {
      totalTokens: together.reduce((sum, count) => sum + count, 0),
      longestTokens: tokens[0] ?? 1,
      maxSequences: together.length,
    };
  }

  /** The present pool when it serves, else a new one. */
  #openPool(policy: PagePolicy, need: PoolNeed): KvPool {
    const shape = cacheShape(this.config, this.dtype, policy, need);
    if (this.#pool?.covers(shape)) return this.#pool;
    if (this.#runStats) this.#stats = this.#runStats.snapshot();
    this.#runStats = undefined;
    this.#pool?.close();
    this.#pool = undefined;
    checkCacheFits(this.device, shape, this.facts.weightBytes);
    return this.#pool = new KvPool(this.device, shape);
  }

  #checkPrompt(ids: readonly number[]): void {
    const { vocabSize, maxContext } = this.config;
    if (ids.length === 0) throw new PagesiftError("usage", "The prompt is empty");
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (wrong !== undefined) {
      throw new PagesiftError("usage", `Token id ${wrong} lies outside the vocabulary of ${vocabSize}`);
    }
    if (ids.length <= maxContext) return;
    const [tokens, limit, over] = [ids.length, maxContext, ids.length - maxContext].map((count) =>
      count.toLocaleString("en-US")
    );
    throw new PagesiftError(
      "context",
      `The prompt is longer than the context: ${tokens} tokens, limit ${limit}, over by ${over}`,
    );
  }

  #lock(): Disposable {
    if (this.#busy) {
      throw new PagesiftError(
        "usage",
        "The engine is busy with another generation; wait for it, or load a second engine",
      );
    }
    this.#busy = true;
    return {
      [Symbol.dispose]: () => {
        this.#busy = false;
      },
    };
  }

  /** Frees the model, the cache and the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.device.closed) return;
    this.#stats = this.stats;
    this.#runStats = undefined;
    await this.device.wait();
    this.device.close();
  }
}
