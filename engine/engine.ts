import type { DeviceInfo } from "../ffi/structs.ts";
import { ABI_VERSION } from "../ffi/symbols.ts";
import { limitContext, type ModelConfig } from "./folder/config.ts";
import { statOrUndefined } from "./folder/json_file.ts";
import { findModelFolder, type FindModelOptions } from "./hub/find.ts";
import { checkDeviceOptions, type DeviceChoice, openDevice } from "./devices.ts";
import { PagesiftError } from "./errors.ts";
import { LoadedModel } from "./loaded_model.ts";
import { modelNotices } from "./model_notices.ts";
import { checkParallel, checkWeightsFit, engineError, needOfKnown, needOfUnknown } from "./memory.ts";
import type { ExtraStatistics, PoolNeed } from "./pages/kv_pool.ts";
import { kvFormat, kvName, type KvType } from "./pages/kv_type.ts";
import { type PagePolicy, resolvePolicy } from "./pages/page_policy.ts";
import { modelFingerprint } from "./prompts/model_fingerprint.ts";
import { Request } from "./request.ts";
import { mapArriving } from "./request_queue.ts";
import { emptyStats } from "./run_stats.ts";
import { withSamplingDefaults } from "./sample/sampling_defaults.ts";
import { type PromptCacheOptions, SavedPrompts } from "./saved_prompts.ts";
import { Session } from "./session.ts";
import { shardModel } from "./shards.ts";
import { type ModelSparsity, withModelDefaults } from "./folder/sparsity_file.ts";
import { formatCount } from "./text/format.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import type {
  BatchPiece,
  EngineStats,
  GenerateOptions,
  GenerateRequest,
  Notice,
  Piece,
  PrefillProgress,
  SamplingOptions,
  SparseOptions,
} from "./types.ts";
import { type ModelSource, openModelSource } from "./source/model_source.ts";
import { planSource } from "./source/plan_source.ts";
import type { WeightFormat } from "./folder/weight_formats.ts";
import type { WeightPlan } from "./folder/weight_plan.ts";
import { checkVerify } from "./verifier.ts";
import { weightBytes, Weights } from "./weights.ts";

/** How {@link Engine.load} loads a model. */
export interface EngineOptions {
  /** `auto` opens CUDA if a GPU answers, else the CPU. Default `auto`. */
  device?: DeviceChoice;
  /** GPUs by number that share the model; one of them, or all of its KV heads split evenly. Default: the first GPU. */
  devices?: readonly number[];
  /** Longest sequence in tokens, at most the limit of the model. Default: that limit. */
  maxContext?: number;
  /** Folder of a LoRA adapter in the layout of PEFT, merged into the weights while they load; its `sparsity.json` applies. */
  adapter?: string;
  /** Defaults for every generation, over those of the model. */
  sparse?: SparseOptions;
  /** What the matrices of a 16-bit or 32-bit model are stored in on the device. Default `auto`: what its files have. */
  weights?: WeightFormat;
  /** What keys and values are stored in. Default `auto`: the 16-bit or 32-bit type of the model. */
  kvType?: KvType;
  /** CPU threads, from 1 to 1024. Default: one per processor that this process may use. */
  threads?: number;
  /** Path of the native library. Default: `PAGESIFT_LIBRARY`, else `build/` beside the module's own folder. */
  library?: string;
  /** Ends loading; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Saves prompts on disk, so that one that begins like a saved one is read from there. Default: off. */
  promptCache?: PromptCacheOptions;
  /** How a hub name is found; paths need none of it. Default: with the process's own environment. */
  hub?: Partial<Omit<FindModelOptions, "signal">>;
}

/** Options of a whole batch. */
export interface BatchOptions extends Pick<GenerateOptions, "signal" | "sparse" | "verify"> {
  /** Called after every prefill chunk of request `index`. */
  onPrefill?: (progress: PrefillProgress, index: number) => void;
  /**
   * Requests that run at the same time, 1 to 256; further ones wait. Default: as many as the memory has room for, with more than 16 only in
   * half of what is free.
   */
  parallel?: number;
}

/**
 * A loaded model that generates text. It runs one generation or batch at a time and refuses a second one meanwhile.
 *
 * ```ts
 * import { defaultModelFolder, Engine } from "@pagesift/pagesift";
 *
 * await using engine = await Engine.load(defaultModelFolder(), { device: "cpu" });
 * for await (const piece of engine.generate("It was the best of times,", { maxTokens: 16 })) {
 *   await Deno.stdout.write(new TextEncoder().encode(piece.text));
 * }
 * ```
 */
export class Engine implements AsyncDisposable {
  readonly #loaded: LoadedModel;
  #session: Session | undefined;
  #stats: EngineStats;

  private constructor(
    loaded: LoadedModel,
    /** Converts between text and token ids. */
    readonly tokenizer: Tokenizer,
    /** Sparse options of {@link load} over the model's defaults. */
    readonly sparse: SparseOptions,
    /** Contents of the model's `sparsity.json`, or undefined without one. */
    readonly sparsity: ModelSparsity | undefined,
    /** Sampling options of `generation_config.json` where it sets `do_sample`: {@link generate} takes them for those that it is not given. */
    readonly sampling: SamplingOptions,
    /** What people should know about the model and the device, such as what is ignored. */
    readonly notices: readonly Notice[],
  ) {
    this.#loaded = loaded;
    this.#stats = emptyStats(loaded.facts);
  }

  /**
   * Loads a model: a Hugging Face folder, a GGUF file (of a split one, the first part), or a hub name such as `org/name`,
   * `org/name:Q4_K_M` or `org/name:file.gguf`, which is downloaded where the cache lacks it.
   *
   * @throws {PagesiftError} of kind "model", "device", "memory", "usage" or "network"
   */
  static async load(pathOrName: string, options: EngineOptions = {}): Promise<Engine> {
    checkDeviceOptions(options.device, options.threads, options.devices);
    const parts = await read(pathOrName, options);
    const { path, trainedContext, generation, sparsity, sparse, policy, tokenizer } = parts;
    const { config, plan } = shardModel(parts.config, parts.plan, options.devices?.length || 1);
    const { sampling, notices: ignored } = generation;
    const { device, notices } = openDevice(
      options.device ?? "auto",
      options.threads,
      options.library,
      options.devices,
    );
    try {
      checkWeightsFit(device, weightBytes(plan));
      const weights = await Weights.load(device, plan, options.signal);
      // The rotation depends on the context that the model was trained for, not on the limit in force.
      const loaded = LoadedModel.create(device, config, weights, kvFormat(options.kvType ?? "auto", plan.dtype), {
        trainedContext,
      });
      if (options.promptCache) {
        loaded.savedPrompts = await openSavedPrompts(options.promptCache, path, loaded, options);
      }
      const own = modelNotices(config, trainedContext, policy, sampling);
      const all = [...ignored, ...plan.notices, ...tokenizer.notices, ...notices, ...own];
      return new Engine(loaded, tokenizer, sparse, sparsity, sampling, all);
    } catch (error) {
      device.close();
      throw engineError(error);
    }
  }

  /** The model's config with the context limit in force. */
  get config(): ModelConfig {
    return this.#loaded.config;
  }

  /** The type of keys and values, such as `bf16` or `q8`. */
  get kvType(): string {
    return kvName(this.#loaded.kv);
  }

  /** The device that runs the model, with its free memory now. */
  describeDevice(): DeviceInfo {
    return this.#loaded.device.describe();
  }

  /** What the latest generation did; zeros before the first one. */
  get stats(): EngineStats {
    return this.#session?.stats ?? this.#stats;
  }

  /**
   * Which pages every layer reads with these options over the engine's.
   *
   * @throws {PagesiftError} of kind "usage" that names the option and its legal values
   */
  policy(sparse: SparseOptions = {}): PagePolicy {
    return resolvePolicy(
      withModelDefaults(this.sparse, sparse),
      this.#loaded.config.slidingWindows,
      this.#loaded.scoresGroups,
    );
  }

  /**
   * Opens a separate KV cache over this model, for inspection and benchmarks, which hold on to sequences. The caller disposes it.
   *
   * @throws {PagesiftError} of kind "memory" that names the context that would fit
   * @internal
   */
  openSession(policy: PagePolicy, need: PoolNeed, extra?: ExtraStatistics): Session {
    return Session.open(this.#loaded, policy, need, extra);
  }

  /**
   * Logits `[ids.length, vocabSize]` of every position, from a prefill under the engine's options, dense by default.
   *
   * @throws {PagesiftError} of kind "usage", "context", "memory" or "device"
   */
  async logits(ids: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
    this.#checkPrompt(ids);
    const { model } = this.#loaded;
    const { vocabSize } = model.config;
    const out = new Float32Array(ids.length * vocabSize);
    try {
      const policy = this.policy({ mode: "off" });
      const session = this.#sessionFor(policy, {
        totalTokens: ids.length,
        longestTokens: ids.length,
        maxSequences: 1,
      });
      const sequence = session.openSequence();
      using _release = { [Symbol.dispose]: () => sequence.release() };
      await session.prefill(sequence, ids, {
        policy,
        onChunk: (hidden, done) => {
          const rows = hidden.shape[0] ?? 0;
          for (let first = 0; first < rows; first += model.maxLogitRows) {
            const logits = model.logits(hidden.rows(first, Math.min(model.maxLogitRows, rows - first)));
            out.set(logits.readFloats(), (done - rows + first) * vocabSize);
          }
        },
      });
      return out;
    } catch (error) {
      throw engineError(error);
    }
  }

  /**
   * Generates from text or token ids, one piece per token. Leaving the loop early ends the generation.
   *
   * @throws {PagesiftError} of kind "usage", "context", "memory", "device" or "numeric"
   */
  async *generate(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<Piece> {
    const { signal, sparse, verify, onPrefill, ...request } = options;
    const batch = {
      ...(signal && { signal }),
      ...(sparse && { sparse }),
      ...(verify && { verify }),
      ...(onPrefill && { onPrefill }),
    };
    for await (const { index: _index, ...piece } of this.generateBatch([{ prompt, options: request }], batch)) {
      if (piece.finish !== "numeric") {
        yield piece;
        continue;
      }
      if (piece.text !== "") yield { id: piece.id, text: piece.text };
      throw new PagesiftError("numeric", piece.error ?? "The model computed logits that are not finite");
    }
  }

  /**
   * Generates for several requests together; their pieces arrive interleaved. As many requests decode at once as the memory has room for
   * (see {@link BatchOptions.parallel}), and the others wait. A request whose logits are not finite ends with finish reason `numeric`, and the others continue.
   *
   * Requests may also arrive during the run: each joins between two decode steps, and its prompt is read in chunks, so that the others
   * continue. The KV cache then takes up to half of the free memory, since the requests are not known when it is created. A request that
   * is invalid, or an error of the source, ends the run after the requests before it.
   *
   * @throws {PagesiftError} of kind "usage", "context", "memory" or "device"
   */
  async *generateBatch(
    requests: readonly GenerateRequest[] | AsyncIterable<GenerateRequest>,
    options: BatchOptions = {},
  ): AsyncGenerator<BatchPiece> {
    const { signal, sparse, verify, onPrefill, parallel } = options;
    checkParallel(parallel);
    const policy = this.policy(sparse);
    if (verify) checkVerify(verify, policy);
    const running = Symbol.asyncIterator in requests
      ? mapArriving(requests, (request, index) => this.#makeRequest(request, index))
      : requests.map((request, index) => this.#makeRequest(request, index));
    if ("length" in running && running.length === 0) return;
    try {
      const need = "length" in running
        ? needOfKnown(this.#loaded, policy, running, parallel)
        : needOfUnknown(this.#loaded, policy, this.describeDevice().availableBytes / 2, parallel);
      const session = this.#sessionFor(policy, need);
      yield* session.generate(running, policy, { signal, onPrefill, verify, parallel });
    } catch (error) {
      throw engineError(error);
    }
  }

  #makeRequest({ prompt, options = {} }: GenerateRequest, index: number): Request {
    const ids = typeof prompt === "string" ? this.tokenizer.encode(prompt) : [...prompt];
    this.#checkPrompt(ids);
    const { maxContext } = this.config;
    const stream = this.tokenizer.stream(typeof prompt === "string" ? ids : []);
    // The text of a special token is never part of the output, so only its id can end the generation.
    const stopIds = (options.stop ?? []).flatMap((text) => this.tokenizer.specialId(text) ?? []);
    const eosTokenIds = [...this.config.eosTokenIds, ...stopIds];
    return new Request(index, ids, withSamplingDefaults(this.sampling, options), stream, { eosTokenIds, maxContext });
  }

  /**
   * Copies the prompts that earlier generations left in the cache into a session of {@link openSession}, as far as it has room.
   *
   * @internal
   */
  lendPrompts(session: Session): void {
    if (this.#session) session.takeOver(this.#session);
  }

  /** The current session if its cache fits, else a new one in its place, with the prompts that the current one remembers. */
  #sessionFor(policy: PagePolicy, need: PoolNeed): Session {
    if (this.#session?.serves(policy, need)) return this.#session;
    this.#loaded.lock()[Symbol.dispose](); // throws while a run uses the current cache
    const grown = this.#grownSession(policy, need);
    this.#closeSession();
    return this.#session = grown ?? this.openSession(policy, need);
  }

  /**
   * A session with the prompts of the current one and up to twice its room, since who asks more usually goes on asking; undefined without
   * a current one, or if both do not fit in memory at once.
   */
  #grownSession(policy: PagePolicy, need: PoolNeed): Session | undefined {
    if (this.#session === undefined || !this.#session.remembersPrompts) return undefined;
    const doubled = Math.min(2 * this.#session.poolTokens, this.config.maxContext);
    const longestTokens = Math.max(need.longestTokens, doubled);
    const roomy = { ...need, totalTokens: Math.max(need.totalTokens, doubled), longestTokens };
    try {
      const session = this.openSession(policy, roomy);
      session.takeOver(this.#session);
      return session;
    } catch (error) {
      if (error instanceof PagesiftError && error.kind === "memory") return undefined;
      throw error;
    }
  }

  #closeSession(): void {
    this.#stats = this.stats;
    this.#session?.[Symbol.dispose]();
    this.#session = undefined;
  }

  #checkPrompt(ids: readonly number[]): void {
    const { vocabSize, maxContext } = this.config;
    if (ids.length === 0) throw new PagesiftError("usage", "The prompt has no tokens");
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (wrong !== undefined) {
      throw new PagesiftError("usage", `Token id ${wrong} is outside the vocabulary of ${vocabSize} tokens`);
    }
    if (ids.length <= maxContext) return;
    const [tokens, limit, over] = [ids.length, maxContext, ids.length - maxContext].map(formatCount);
    throw new PagesiftError(
      "context",
      `The prompt is longer than the context: ${tokens} tokens, limit ${limit}, over by ${over}`,
    );
  }

  /** Waits for the device, then frees the model, the cache and the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#loaded.device.closed) return;
    await this.#loaded.device.wait();
    this.#closeSession();
    await this.#loaded[Symbol.asyncDispose]();
  }
}

/** With everything that keys and values depend on besides the files of the model and the shape of the cache. */
async function openSavedPrompts(
  promptCache: PromptCacheOptions,
  path: string,
  { device, config }: LoadedModel,
  { weights = "auto", adapter }: EngineOptions,
): Promise<SavedPrompts> {
  const { backend, name } = device.describe();
  // LongRoPE rotates by the context in force.
  const context = config.rope.type === "longrope" ? config.maxContext : 0;
  const facts = { abi: ABI_VERSION, backend, name, weights, context };
  const added = adapter === undefined ? {} : { adapter: await modelFingerprint(adapter, promptCache.folder) };
  return await SavedPrompts.open(promptCache, path, { ...facts, ...added });
}

/** All of a model but its weights, under the options of {@link Engine.load}. */
interface ModelParts extends Pick<ModelSource, "config" | "generation" | "sparsity"> {
  readonly path: string;
  /** Tokens. */
  readonly trainedContext: number;
  readonly sparse: SparseOptions;
  readonly policy: PagePolicy;
  readonly plan: WeightPlan;
  readonly tokenizer: Tokenizer;
}

/** Reads a model without keeping its source: the metadata of a GGUF file contain the vocabulary once more. */
async function read(pathOrName: string, options: EngineOptions): Promise<ModelParts> {
  const path = await locate(pathOrName, options);
  const source = await openModelSource(path, options.adapter);
  const { generation, sparsity } = source;
  const { maxContext: trainedContext } = source.config;
  const config = limitContext({ ...source.config, eosTokenIds: generation.eosTokenIds }, options.maxContext);
  const sparse = withModelDefaults(sparsity?.defaults ?? {}, options.sparse ?? {});
  const policy = resolvePolicy(sparse, config.slidingWindows);
  const plan = await planSource(source, config, { format: options.weights, signal: options.signal });
  const tokenizer = await source.tokenizer({ vocabSize: config.vocabSize });
  return { path, config, trainedContext, generation, sparsity, sparse, policy, plan, tokenizer };
}

/** The path of a model. Only a hub name needs the environment and the network, and the permissions for both. */
async function locate(pathOrName: string, { hub, signal }: EngineOptions): Promise<string> {
  if (await statOrUndefined(pathOrName) !== undefined) return pathOrName;
  return await findModelFolder(pathOrName, { ...hub, ...signal && { signal } });
}
