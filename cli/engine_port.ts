import type { ModelSparsity } from "../engine/folder/sparsity_file.ts";
import type {
  BatchPiece,
  EngineStats,
  GenerateOptions,
  GenerateRequest,
  Notice,
  Piece,
  PrefillProgress,
  SparseOptions,
} from "../engine/types.ts";

/** What the commands need of a loaded model; tests pass a fake one. */
export interface EnginePort extends AsyncDisposable {
  readonly config: { readonly maxContext: number };
  readonly tokenizer: TokenizerPort;
  readonly stats: EngineStats;
  /** What people should know about the model and the device. */
  readonly notices: readonly Notice[];
  /** What the model's `sparsity.json` says. */
  readonly sparsity?: ModelSparsity | undefined;
  /** A piece that only closes an aborted generation has the id -1. */
  generate(prompt: readonly number[], options: GenerateOptions): AsyncIterable<Piece>;
  generateBatch(requests: readonly GenerateRequest[], options: BatchOptions): AsyncIterable<BatchPiece>;
}

/** What holds for all requests of a batch. */
export interface BatchOptions {
  sparse?: SparseOptions;
  signal?: AbortSignal;
  onPrefill?: (progress: PrefillProgress, index: number) => void;
}

export interface TokenizerPort {
  readonly hasChatTemplate: boolean;
  encode(text: string, options?: { addSpecialTokens?: boolean; specialTokensAsText?: boolean }): number[];
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  encodeChat(messages: readonly ChatMessage[], options?: { addGenerationPrompt?: boolean }): number[];
}

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

export type DeviceChoice = "auto" | "cpu" | "cuda";

export interface LoadOptions {
  device: DeviceChoice;
  maxContext?: number;
  threads?: number;
  signal?: AbortSignal;
  sparse?: SparseOptions;
}

export interface FindModelOptions {
  offline?: boolean;
  revision?: string;
  signal?: AbortSignal;
  /** Called while a model is downloaded. */
  onProgress?: (progress: DownloadProgress) => void;
}

export interface DownloadProgress {
  file: string;
  doneBytes: number;
  /** Undefined where the server does not tell. */
  totalBytes: number | undefined;
}

/** Finds and loads models; the real one opens the native library, tests pass a fake. */
export interface ModelSource {
  findModelFolder(nameOrPath: string, options: FindModelOptions): Promise<string>;
  loadEngine(folder: string, options: LoadOptions): Promise<EnginePort>;
}
