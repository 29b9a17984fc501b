import type { Architecture } from "../folder/architectures.ts";
import type { ConfigFields } from "../folder/config_fields.ts";
import type { JsonObject } from "../folder/json_file.ts";

/** How GGUF files of one `general.architecture` say what a model is. */
export interface GgufFamily {
  readonly architecture: Architecture;
  /** Whether rows of q and k stand in the order of a rotation of neighbouring dimensions. */
  readonly interleaved: boolean;
  /** Names of a layer's tensors where they differ from {@link LAYER_TENSORS}. */
  readonly layerTensors?: Readonly<Record<string, string>>;
  /** Norm weights contain the 1 that this architecture's checkpoints leave out. */
  readonly wholeNorms?: boolean;
  /** Fields of `config.json` beside the usual ones. `fields` are those of the architecture, without its name in front. */
  readonly config?: (fields: ConfigFields) => JsonObject;
}

/** Names in a GGUF layer, and in a Hugging Face one. */
export const LAYER_TENSORS: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_qkv: "self_attn.qkv_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  ffn_gate_inp: "mlp.gate",
};

/** Tensors of all experts of a layer, one behind the other. */
export const EXPERT_TENSORS: Readonly<Record<string, string>> = {
  ffn_gate_exps: "gate_proj",
  ffn_up_exps: "up_proj",
  ffn_down_exps: "down_proj",
};

/** Names outside the layers. */
export const OTHER_TENSORS: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** The supported values of `general.architecture`. Mistral's models have "llama" there. */
export const GGUF_FAMILIES: Readonly<Record<string, GgufFamily>> = {
  llama: { architecture: "LlamaForCausalLM", interleaved: true },
  qwen2: { architecture: "Qwen2ForCausalLM", interleaved: false },
  qwen3: { architecture: "Qwen3ForCausalLM", interleaved: false },
  qwen3moe: {
    architecture: "Qwen3MoeForCausalLM",
    interleaved: false,
    config: (fields) => ({
      num_experts: fields.json["expert_count"],
      num_experts_per_tok: fields.json["expert_used_count"],
      moe_intermediate_size: fields.json["expert_feed_forward_length"],
      norm_topk_prob: fields.flag("expert_weights_norm", true),
    }),
  },
  phi3: {
    architecture: "Phi3ForCausalLM",
    interleaved: false,
    layerTensors: { ffn_up: "mlp.gate_up_proj" },
    config: (fields) => ({ sliding_window: fields.json["attention.sliding_window"] || null }),
  },
  gemma3: {
    architecture: "Gemma3ForCausalLM",
    interleaved: false,
    layerTensors: {
      post_attention_norm: "post_attention_layernorm",
      ffn_norm: "pre_feedforward_layernorm",
      post_ffw_norm: "post_feedforward_layernorm",
    },
    wholeNorms: true,
    config: gemma3Config,
  },
  smollm3: { architecture: "SmolLM3ForCausalLM", interleaved: true },
  granite: {
    architecture: "GraniteForCausalLM",
    interleaved: true,
    config: (fields) => ({
      embedding_multiplier: fields.json["embedding_scale"],
      attention_multiplier: fields.json["attention.scale"],
      residual_multiplier: fields.json["residual_scale"],
      logits_scaling: fields.json["logit_scale"],
    }),
  },
};

/** The largest Gemma 3 scales queries by another size than that of its heads, and is known by its layers. */
const GEMMA3_27B_LAYERS = 62;

function gemma3Config({ json }: ConfigFields): JsonObject {
  const [hidden, heads, layers] = [json["embedding_length"], json["attention.head_count"], json["block_count"]];
  const queryScale = layers === GEMMA3_27B_LAYERS ? Number(hidden) / Number(heads) : json["attention.key_length"];
  return {
    sliding_window: json["attention.sliding_window"],
    sliding_window_pattern: json["attention.sliding_window_pattern"],
    rope_local_base_freq: json["rope.freq_base_swa"],
    query_pre_attn_scalar: queryScale,
  };
}
