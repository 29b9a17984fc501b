/**
 * Writes the model of a GGUF file as a Hugging Face folder in bf16, which training and other tools read.
 *
 *     deno run -A scripts/train/dequantize_gguf.ts FILE.gguf -o FOLDER
 *
 * Every number is the one that the quantised block stands for, rounded to bf16. Rows of q and k get the order that transformers expects.
 * Architectures: llama, qwen2 and qwen3, without scaling of the rotation.
 */
import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { PagesiftError } from "../../engine/errors.ts";
import { floatRows } from "../../engine/float_rows.ts";
import type { CheckpointTensor } from "../../engine/folder/checkpoint.ts";
import type { ModelConfig } from "../../engine/folder/config.ts";
import type { JsonObject } from "../../engine/folder/json_file.ts";
import { readRowsInPieces } from "../../engine/folder/tensor_rows.ts";
import { weightDType } from "../../engine/folder/weight_formats.ts";
import { ggufChatTemplate, ggufTokenizerFiles } from "../../engine/gguf/tokenizer.ts";
import { GgufSource, SPARSITY_FIELD } from "../../engine/source/gguf_source.ts";
import { Device } from "../../ffi/device.ts";
import { DTYPE_BYTES } from "../../ffi/structs.ts";
import { log, print } from "../output.ts";

/** Architectures whose folder has nothing that {@link configJson} leaves out. */
const MODEL_TYPES: Readonly<Record<string, string>> = {
  LlamaForCausalLM: "llama",
  Qwen2ForCausalLM: "qwen2",
  Qwen3ForCausalLM: "qwen3",
};
/** Numbers that are dequantised at a time. */
const PIECE_NUMBERS = 1 << 22;

/** The `config.json` of a model. @throws {PagesiftError} of kind "model" where it cannot say what the GGUF file says */
function configJson(config: ModelConfig, file: string): JsonObject {
  const modelType = MODEL_TYPES[config.architecture];
  if (modelType === undefined || config.rope.type !== "default" || config.rope.partialRotaryFactor !== 1) {
    const found = `${config.architecture} with a rotation of type "${config.rope.type}"`;
    const expected = `${Object.keys(MODEL_TYPES).join(", ")} with the default rotation`;
    throw new PagesiftError("model", `Cannot write "${file}" as a folder: found ${found}, expected ${expected}`);
  }
  return {
    architectures: [config.architecture],
    model_type: modelType,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numQueryHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    max_position_embeddings: config.maxContext,
    rms_norm_eps: config.rmsNormEps,
    rope_theta: config.rope.theta,
    hidden_act: "silu",
    attention_bias: config.attentionBias.output,
    mlp_bias: config.mlpBias,
    tie_word_embeddings: config.tieWordEmbeddings,
    torch_dtype: "bfloat16",
    ...tokenFields(config),
  };
}

function tokenFields({ eosTokenIds, bosTokenId }: ModelConfig): JsonObject {
  return {
    ...eosTokenIds.length > 0 && { eos_token_id: eosTokenIds },
    ...bosTokenId !== undefined && { bos_token_id: bosTokenId },
  };
}

/** bf16 bits, to nearest, ties to even. */
function bf16Bytes(floats: Float32Array<ArrayBuffer>): Uint8Array {
  const bits = new Uint32Array(floats.buffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16).buffer);
}

/** Passes all numbers of a tensor, in bf16, to `put`: what the embedding operation reads from the rows. */
function writeNumbers(device: Device, tensor: CheckpointTensor, put: (bytes: Uint8Array) => void): void {
  const dtype = weightDType(tensor.dtype);
  if (dtype === undefined) {
    throw new PagesiftError(
      "model",
      `Tensor "${tensor.name}" of "${tensor.file}" is ${tensor.dtype}, which is not supported`,
    );
  }
  const [numRows = 1, columns = 1] = tensor.shape;
  const rowBytes = columns * DTYPE_BYTES[dtype];
  const rowsAtOnce = Math.max(1, Math.min(numRows, Math.floor(PIECE_NUMBERS / columns)));
  readRowsInPieces(tensor, (bytes, _first, rows) => {
    const floats = floatRows(device, dtype, [rows, columns], bytes);
    put(bf16Bytes(floats.readFloats()));
    floats.buffer.close();
  }, new Uint8Array(2 * rowsAtOnce * rowBytes));
}

/** Writes a safetensors file with all tensors in bf16. */
function writeWeights(path: string, tensors: ReadonlyMap<string, CheckpointTensor>): void {
  let end = 0;
  const entries = [...tensors].map(([name, { shape }]) => {
    const begin = end;
    end += shape.reduce((product, size) => product * size, DTYPE_BYTES.bf16);
    return [name, { dtype: "BF16", shape, data_offsets: [begin, end] }];
  });
  const text = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) });
  const encoded = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
  using device = Device.open("cpu");
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  const put = (bytes: Uint8Array): void => {
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  };
  put(new Uint8Array(BigUint64Array.of(BigInt(encoded.length)).buffer));
  put(encoded);
  for (const tensor of tensors.values()) writeNumbers(device, tensor, put);
}

/**
 * Writes the model of a GGUF file as a folder that this program and transformers load. Returns the number of tensors.
 *
 * @throws {PagesiftError} of kind "model"
 */
export async function dequantizeGguf(path: string, folder: string): Promise<number> {
  const source = await GgufSource.open(path);
  const config = { ...source.config, eosTokenIds: source.generation.eosTokenIds };
  const json = configJson(config, path);
  const { definition, config: tokenizerConfig } = ggufTokenizerFiles(source.header);
  const template = ggufChatTemplate(source.header);
  const sparsity = source.header.metadata.get(SPARSITY_FIELD);
  await Deno.mkdir(folder, { recursive: true });
  const writeJson = (name: string, value: JsonObject): Promise<void> =>
    Deno.writeTextFile(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  await writeJson("config.json", json);
  await writeJson("generation_config.json", tokenFields(config));
  await writeJson("tokenizer.json", { version: "1.0", truncation: null, padding: null, ...definition });
  await writeJson("tokenizer_config.json", {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
    model_max_length: config.maxContext,
    ...tokenizerConfig,
  });
  if (template !== "") await Deno.writeTextFile(join(folder, "chat_template.jinja"), template);
  if (typeof sparsity === "string") await Deno.writeTextFile(join(folder, "sparsity.json"), sparsity);
  const { tensors } = await source.tensors();
  writeWeights(join(folder, "model.safetensors"), tensors);
  return tensors.size;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["output"], alias: { output: "o" } });
  const [path] = flags._.map(String);
  if (path === undefined || !flags.output) {
    log("Usage: dequantize_gguf.ts FILE.gguf -o FOLDER");
    Deno.exit(2);
  }
  try {
    const count = await dequantizeGguf(path, String(flags.output));
    print(`${flags.output}: ${count} tensors in bf16`);
  } catch (error) {
    if (!(error instanceof PagesiftError)) throw error;
    log(error.message);
    Deno.exit(3);
  }
}

if (import.meta.main) await main();
