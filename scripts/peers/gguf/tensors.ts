/** The tensors of a Hugging Face checkpoint with the names, shapes and row orders that llama.cpp requires. */
import type { CheckpointTensor } from "../../../engine/folder/checkpoint.ts";
import type { ModelConfig } from "../../../engine/folder/config.ts";
import { PagesiftError } from "../../../engine/errors.ts";
import { ropeFrequencies } from "../../../engine/folder/rope.ts";
import { MAX_PIECE_BYTES, readTensorInPieces } from "../../../engine/folder/safetensors.ts";
import { decodeTensor } from "../../../engine/folder/tensor_data.ts";
import { ELEMENT_BYTES, GGML_TYPES, type GgmlType, type GgufTensor } from "./file.ts";
import type { GgufArchitecture } from "./metadata.ts";

/** Parts of a layer. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "mlp.gate": "ffn_gate_inp",
  "self_attn.qkv_proj": "attn_qkv",
  "mlp.gate_up_proj": "ffn_up",
};
/** Gemma norms what its blocks give, so that one name of the checkpoint stands for another norm. */
const GEMMA_NAMES: Readonly<Record<string, string>> = {
  ...LAYER_NAMES,
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
};
/** Families whose files rotate neighbouring dimensions. */
const INTERLEAVED: readonly GgufArchitecture[] = ["llama", "smollm3", "granite"];
const EXPERT_NAMES: Readonly<Record<string, string>> = {
  gate_proj: "ffn_gate_exps",
  up_proj: "ffn_up_exps",
  down_proj: "ffn_down_exps",
};
const OTHER_NAMES: Readonly<Record<string, string>> = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};
/** Unused tensors in old checkpoints. */
const IGNORED = /(rotary_emb\.inv_freq|\.masked_bias)$/;

/** llama.cpp's name; undefined for a tensor that it has no place for. */
export function ggufName(name: string, architecture: GgufArchitecture = "llama"): string | undefined {
  const [, layer, part = "", kind] = name.match(/^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/) ?? [];
  if (layer === undefined) return OTHER_NAMES[name];
  const [, expert] = part.match(/^mlp\.experts\.\d+\.(\w+)$/) ?? [];
  const names = architecture === "gemma3" ? GEMMA_NAMES : LAYER_NAMES;
  const ours = expert === undefined ? names[part] : EXPERT_NAMES[expert];
  return ours && `blk.${layer}.${ours}.${kind}`;
}

function readAll(entry: CheckpointTensor): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(entry.bytes);
  readTensorInPieces(entry.file, entry, MAX_PIECE_BYTES, (piece, offset) => bytes.set(piece, offset));
  return bytes;
}

/** Numbers widened to f32, plus `offset`; llama.cpp adds and multiplies by vectors in f32 only. */
function widen(entry: CheckpointTensor, bytes: Uint8Array<ArrayBuffer>, offset: number): Uint8Array {
  return new Uint8Array(Float32Array.from(decodeTensor(entry.dtype, bytes) ?? [], (value) => value + offset).buffer);
}

/**
 * Rows of q or k in the order of llama.cpp's "llama": it rotates neighbouring dimensions of a head, the checkpoint dimensions
 * that lie half a head apart.
 */
export function interleaveHalves(
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  headDim: number,
): Uint8Array<ArrayBuffer> {
  const rowBytes = bytes.length / rows, half = headDim / 2;
  const out = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    const place = row % headDim;
    const source = row - place + (place % 2) * half + Math.floor(place / 2);
    out.set(bytes.subarray(source * rowBytes, (source + 1) * rowBytes), row * rowBytes);
  }
  return out;
}

/** Options for writing tensors. */
export interface TensorOptions {
  /** Writes matrices in f32 too. */
  widen?: boolean;
}

interface Place extends TensorOptions {
  name: string;
  headDim: number;
  /** Added to the weights of norms, which llama.cpp has whole. */
  normOffset: number;
  interleaved: boolean;
}

/** One tensor of the file. */
function planTensor(
  entry: CheckpointTensor,
  { name, headDim, normOffset, interleaved, widen: all = false }: Place,
): GgufTensor {
  if (!Object.hasOwn(GGML_TYPES, entry.dtype)) {
    throw new PagesiftError("model", `Tensor "${entry.name}" is ${entry.dtype}; expected F32, F16 or BF16`);
  }
  const isWide = all || entry.shape.length === 1;
  const isTurned = interleaved && /\.attn_[qk]\.(weight|bias)$/.test(name);
  const type: GgmlType = isWide ? "F32" : entry.dtype as GgmlType;
  const write = (put: (piece: Uint8Array) => void): void => {
    if (!isWide && !isTurned) return readTensorInPieces(entry.file, entry, MAX_PIECE_BYTES, put);
    const bytes = readAll(entry);
    const turned = isTurned ? interleaveHalves(bytes, entry.shape[0] ?? 0, headDim) : bytes;
    put(isWide ? widen(entry, turned, name.includes("norm") ? normOffset : 0) : turned);
  };
  return { name, type, shape: entry.shape, write };
}

/** The divisor of llama3's rotation for each plain frequency, `[rotaryDim / 2]`. */
function ropeFactors(config: ModelConfig): GgufTensor {
  const { rope, headDim, maxContext } = config;
  const plain = ropeFrequencies({ ...rope, type: "default" }, headDim, maxContext).invFreq;
  const scaled = ropeFrequencies(rope, headDim, maxContext).invFreq;
  const factors = plain.map((frequency, index) => frequency / (scaled[index] ?? NaN));
  return {
    ...{ name: "rope_freqs.weight", type: "F32", shape: [factors.length] },
    write: (put) => put(new Uint8Array(factors.buffer)),
  };
}

/**
 * All tensors of the file, in the order of the checkpoint. @throws {PagesiftError} that names tensors without a
 * GGUF name
 */
export function planTensors(
  config: ModelConfig,
  architecture: GgufArchitecture,
  tensors: ReadonlyMap<string, CheckpointTensor>,
  options: TensorOptions = {},
): GgufTensor[] {
  const expertOf = (name: string): number => Number(/\.experts\.(\d+)\./.exec(name)?.[1] ?? 0);
  const wanted = [...tensors.values()].filter(({ name }) => !IGNORED.test(name))
    .sort((a, b) => expertOf(a.name) - expertOf(b.name));
  const nameOf = (name: string): string | undefined => ggufName(name, architecture);
  const homeless = wanted.filter(({ name }) => nameOf(name) === undefined).map(({ name }) => name);
  if (homeless.length > 0) {
    throw new PagesiftError("model", `No GGUF name in "${architecture}" for: ${homeless.slice(0, 8).join(", ")}`);
  }
  const { headDim, normOffset } = config;
  const place = { headDim, normOffset, interleaved: INTERLEAVED.includes(architecture), ...options };
  const planned = wanted.map((entry) => planTensor(entry, { name: nameOf(entry.name) ?? "", ...place }));
  return [...stackExperts(planned), ...config.rope.type === "llama3" ? [ropeFactors(config)] : []];
}

/** Tensors of one name, one behind the other in the order of their experts, as one tensor. */
function stackExperts(tensors: readonly GgufTensor[]): GgufTensor[] {
  return [...Map.groupBy(tensors, ({ name }) => name).values()].flatMap((group) => {
    const [first] = group;
    if (!first || group.length === 1) return group;
    return [{
      ...first,
      shape: [group.length, ...first.shape],
      write: (put: (piece: Uint8Array) => void) => group.forEach((tensor) => tensor.write(put)),
    }];
  });
}

/** The type of most bytes in the matrices. */
export function mainType(tensors: readonly GgufTensor[]): GgmlType {
  const bytes = { F32: 0, F16: 0, BF16: 0 };
  for (const { type, shape } of tensors) {
    if (shape.length > 1) bytes[type] += shape.reduce((product, size) => product * size, ELEMENT_BYTES[type]);
  }
  return (Object.keys(bytes) as GgmlType[]).reduce((best, type) => bytes[type] > bytes[best] ? type : best);
}
