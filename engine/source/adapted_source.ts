import { type Adapter, withAdapter } from "../folder/adapter.ts";
import type { ModelTensors } from "../folder/checkpoint.ts";
import type { GenerationConfig, ModelConfig } from "../folder/config.ts";
import type { ModelSparsity } from "../folder/sparsity_file.ts";
import type { Tokenizer, TokenizerOptions } from "../text/tokenizer.ts";
import type { ModelSource } from "./model_source.ts";

/** A model whose weights an adapter changes while they load. */
export class AdaptedSource implements ModelSource {
  readonly path: string;
  readonly config: ModelConfig;
  readonly generation: GenerationConfig;
  readonly sparsity: ModelSparsity | undefined;

  constructor(readonly base: ModelSource, readonly adapter: Adapter) {
    this.path = base.path;
    this.config = base.config;
    this.generation = base.generation;
    this.sparsity = adapter.sparsity ?? base.sparsity;
  }

  async tensors(): Promise<ModelTensors> {
    const { tensors, notices, ...names } = await this.base.tensors();
    const { folder, changes } = this.adapter;
    const text = `Adapter "${folder}": merged into ${changes.size} matrices`;
    return { tensors: withAdapter(tensors, this.adapter), notices: [...notices, { level: "info", text }], ...names };
  }

  tokenizer(options?: TokenizerOptions): Promise<Tokenizer> {
    return this.base.tokenizer(options);
  }
}
