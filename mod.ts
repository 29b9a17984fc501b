/**
 * Pagesift runs language models over long text and reads only the KV pages that matter.
 *
 * ```ts
 * import { defaultModelFolder, Engine } from "@pagesift/pagesift";
 *
 * await using engine = await Engine.load(defaultModelFolder(), { device: "cpu" });
 * for await (const piece of engine.generate("It was the best of times,", { maxTokens: 32 })) {
 *   await Deno.stdout.write(new TextEncoder().encode(piece.text));
 * }
 * ```
 *
 * {@link Engine} loads a model and generates text. {@link Device} and {@link KvCache} are the level below: paged keys and values, page
 * scores, selection and attention without a model. Both require the native library, which `deno task build` compiles; the option
 * `library` or the variable `PAGESIFT_LIBRARY` names it for a module that is not loaded from a file.
 *
 * @module
 */
export type { DeviceChoice } from "./engine/devices.ts";
export { type BatchOptions, Engine, type EngineOptions } from "./engine/engine.ts";
export { type ErrorKind, PagesiftError } from "./engine/errors.ts";
export type { Architecture } from "./engine/folder/architectures.ts";
export type { ModelConfig, ModelScales, MoeConfig } from "./engine/folder/config.ts";
export type { LayerRotation } from "./engine/folder/layer_rotations.ts";
export type { ModelSparsity } from "./engine/folder/sparsity_file.ts";
export type { BlockDType, PlainDType, WeightDType, WeightFormat } from "./engine/folder/weight_formats.ts";
export type { KvType } from "./engine/pages/kv_type.ts";
export type { Environment } from "./engine/hub/cache.ts";
export { defaultModelFolder } from "./engine/hub/default_model.ts";
export { type DownloadProgress, findModelFolder, type FindModelOptions } from "./engine/hub/find.ts";
export type { LayerPolicy, PagePolicy, PrefillPolicy } from "./engine/pages/page_policy.ts";
export type { PromptCacheOptions } from "./engine/saved_prompts.ts";
export type { ChatMessage } from "./engine/text/chat_template.ts";
export type { TextStream, TokenDecoder } from "./engine/text/text_stream.ts";
export { type ChatOptions, type EncodeOptions, Tokenizer, type TokenizerOptions } from "./engine/text/tokenizer.ts";
export type {
  BatchPiece,
  EngineStats,
  FinishReason,
  GenerateOptions,
  GenerateRequest,
  Notice,
  Piece,
  PrefillProgress,
  RunVerification,
  SamplingOptions,
  SavedPromptStats,
  Scorer,
  SparseOptions,
  Verification,
  VerifyOptions,
} from "./engine/types.ts";
export { Device, type DeviceBuffer, type DeviceOptions, type Graph } from "./ffi/device.ts";
export { NativeError, Status } from "./ffi/errors.ts";
export type { Handle } from "./ffi/handle.ts";
export {
  type AppendedHeads,
  type CacheField,
  type HeadRotation,
  KvCache,
  type ScoreOptions,
  type Selection,
  type SelectionWork,
  type SelectOptions,
  type Sequences,
} from "./ffi/kv_cache.ts";
export type { LibraryKind } from "./ffi/library.ts";
export type { CacheBytes, CacheShape, Counters, DeviceInfo, DType, PageStatistics } from "./ffi/structs.ts";
export { Tensor } from "./ffi/tensor.ts";
