/** The part of the engine that commands use, taken from its own types, so that an unknown option is a type error. */
import type { DeviceChoice } from "../engine/devices.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import type { ModelConfig } from "../engine/folder/config.ts";
import type { FindModelOptions as HubOptions } from "../engine/hub/find.ts";
import type { Tokenizer } from "../engine/text/tokenizer.ts";

export type { BatchOptions } from "../engine/engine.ts";
export type { DownloadProgress } from "../engine/hub/find.ts";
export type { ChatMessage } from "../engine/text/chat_template.ts";

/** A tokenizer with its chat template; tests pass a fake one. */
export type TokenizerPort = Pick<
  Tokenizer,
  "hasChatTemplate" | "switchesThinking" | "encode" | "decode" | "encodeChat"
>;

/** A loaded model; tests pass a fake one. */
export interface EnginePort
  extends AsyncDisposable, Pick<Engine, "stats" | "notices" | "sparsity" | "sampling" | "generate" | "generateBatch"> {
  readonly config: Pick<ModelConfig, "maxContext">;
  readonly tokenizer: TokenizerPort;
}

export type LoadOptions = EngineOptions & { device: DeviceChoice };

/** Without the environment, which the world supplies. */
export type FindModelOptions = Omit<HubOptions, "env" | "fetch" | "stallSeconds">;

/** Finds and loads models; the real one opens the native library, tests pass a fake. */
export interface ModelSource {
  findModelFolder(nameOrPath: string, options: FindModelOptions): Promise<string>;
  loadEngine(folder: string, options: LoadOptions): Promise<EnginePort>;
}
