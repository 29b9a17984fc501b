/**
 * Pagesift: language models over long text that read only the KV pages that matter.
 *
 * ```ts
 * import { Engine } from "./mod.ts";
 *
 * await using engine = await Engine.load("models/default", { device: "cpu" });
 * for await (const piece of engine.generate("It was the best of times,", { maxTokens: 32 })) {
 *   console.log(piece.text);
 * }
 * ```
 *
 * @module
 */
export { type BatchOptions, Engine, type EngineOptions } from "./engine/engine.ts";
export { type ErrorKind, PagesiftError } from "./engine/errors.ts";
export { type DownloadProgress, findModelFolder, type FindModelOptions } from "./engine/hub/find.ts";
export type { ModelConfig } from "./engine/folder/config.ts";
export type { WeightFormat } from "./engine/folder/weight_formats.ts";
export type {
  BatchPiece,
  EngineStats,
  FinishReason,
  GenerateOptions,
  GenerateRequest,
  Piece,
  PrefillProgress,
  SamplingOptions,
  Scorer,
  SparseOptions,
} from "./engine/types.ts";
export { Device, DeviceBuffer, type DeviceOptions } from "./ffi/device.ts";
export { NativeError, Status } from "./ffi/errors.ts";
export { KvCache, type Selection, type Sequences } from "./ffi/kv_cache.ts";
export { liveHandles } from "./ffi/library.ts";
export type { CacheBytes, CacheShape, Counters, DeviceInfo, DType } from "./ffi/structs.ts";
export { Tensor } from "./ffi/tensor.ts";
