import type { CheckpointTensor } from "./checkpoint.ts";
import { ConfigFields, type Range } from "./config_fields.ts";
import { PagesiftError } from "../errors.ts";
import { shorten } from "./json_file.ts";
import { BLOCK_SIZE, F8_BLOCK_SIZE } from "./weight_formats.ts";

/** How the matrices of a model folder are quantised. */
export type Quantization = { method: "fp8" } | PackedQuantization;

/** 4 bits in groups along the inner dimension, each with a scale and a zero point. */
export interface PackedQuantization {
  method: "awq" | "gptq";
  /** Numbers of a group; undefined where a row is one group. */
  groupSize: number | undefined;
  /** What is added to zero points as they are stored: 1 in files of the first GPTQ format. */
  zeroOffset: 0 | 1;
}

const METHODS = ["fp8", "fbgemm_fp8", "compressed-tensors", "awq", "gptq"];
const BITS: Range = { min: 1, max: 32 };
const GROUP: Range = { min: -1, max: 1_000_000 };
const INTEGER = "I32";
const GPTQ_FORMATS = ["gptq", "gptq_v2"];
/** What compressed-tensors calls 8-bit floats. */
const F8_FORMAT = "float-quantized";
/** Tensors about activations, which are not quantised here. */
const ACTIVATION_SCALES = /\.(input_scale|input_activation_scale|activation_scale|input_scale_ub)$/;

/** What `quantization_config` of `config.json` says; undefined where weights are not quantised. Throws "model" errors. */
export function parseQuantization(fields: ConfigFields): Quantization | undefined {
  if (!fields.has("quantization_config")) return undefined;
  const config = fields.object("quantization_config");
  const method = config.text("quant_method", "unknown method");
  if (!METHODS.includes(method)) {
    const problem = `Quantized weights ("${shorten(method)}") are not supported in "${fields.file}"`;
    throw new PagesiftError(
      "model",
      `${problem}; use the model with f32, f16 or bf16 weights, or as a GGUF file; supported are ${METHODS.join(", ")}`,
    );
  }
  if (method !== "awq" && method !== "gptq") return parseF8(config, method);
  const bits = config.count(config.has("w_bit") ? "w_bit" : "bits", BITS);
  if (bits !== 4) config.refuse(config.has("w_bit") ? "w_bit" : "bits", "4");
  const version = config.text("version", "gemm");
  if (method === "awq" && version.toLowerCase() !== "gemm") config.refuse("version", '"gemm"');
  const groupSize = config.count(config.has("q_group_size") ? "q_group_size" : "group_size", GROUP);
  const format = config.text("checkpoint_format", "gptq");
  if (!GPTQ_FORMATS.includes(format)) config.refuse("checkpoint_format", `one of ${GPTQ_FORMATS.join(", ")}`);
  const zeroOffset = method === "gptq" && format === "gptq" ? 1 : 0;
  return { method, groupSize: groupSize > 0 ? groupSize : undefined, zeroOffset };
}

function parseF8(config: ConfigFields, method: string): Quantization {
  if (method === "compressed-tensors" && config.text("format", "") !== F8_FORMAT) {
    config.refuse("format", `"${F8_FORMAT}"`);
  }
  const isSize = (item: unknown): item is number => typeof item === "number";
  const sizes = config.list("weight_block_size", "a list of two sizes", isSize);
  if (sizes.length > 0 && sizes.some((size) => size !== F8_BLOCK_SIZE)) {
    config.refuse("weight_block_size", `[${F8_BLOCK_SIZE}, ${F8_BLOCK_SIZE}]`);
  }
  return { method: "fp8" };
}

/**
 * The tensors with each quantised matrix as one, under the name of its weight. Throws "model" errors that name the tensor whose scales
 * are missing or of another shape.
 */
export function withQuantization(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  quantization: Quantization | undefined,
): ReadonlyMap<string, CheckpointTensor> {
  if (quantization === undefined) return tensors;
  const kept = [...tensors].filter(([name]) => !ACTIVATION_SCALES.test(name));
  return quantization.method === "fp8" ? withF8(new Map(kept)) : withPacked(new Map(kept), quantization);
}

function withF8(tensors: Map<string, CheckpointTensor>): Map<string, CheckpointTensor> {
  for (const [name, tensor] of [...tensors]) {
    if (tensor.dtype !== "F8_E4M3" || tensor.shape.length !== 2) continue;
    const found = [`${name}_scale_inv`, `${name}_scale`].map((scale) => tensors.get(scale)).find(Boolean);
    const scales = found ?? refuse(tensor, `has no scales ("${name}_scale_inv" or "${name}_scale")`);
    checkF8(tensor, scales);
    tensors.delete(scales.name);
    tensors.set(name, { ...tensor, dtype: "F8", storage: { kind: "f8", scales } });
  }
  return tensors;
}

function checkF8(tensor: CheckpointTensor, scales: CheckpointTensor): void {
  const [rows = 0, columns = 0] = tensor.shape;
  if (columns % F8_BLOCK_SIZE !== 0) refuse(tensor, `has rows of ${columns} numbers, no multiple of ${F8_BLOCK_SIZE}`);
  const blocks = [Math.ceil(rows / F8_BLOCK_SIZE), columns / F8_BLOCK_SIZE];
  const shapes = [blocks, [rows, 1], [rows], [1], []].map((shape) => shape.join());
  if (!shapes.includes(scales.shape.join()) || !["F32", "F16", "BF16"].includes(scales.dtype)) {
    refuse(scales, `is ${scales.dtype} [${scales.shape}]; expected a scale for each row, or [${blocks}]`);
  }
}

function withPacked(
  tensors: Map<string, CheckpointTensor>,
  quantization: PackedQuantization,
): Map<string, CheckpointTensor> {
  for (const [name, packed] of [...tensors]) {
    if (!name.endsWith(".qweight")) continue;
    const stem = name.slice(0, -".qweight".length);
    const part = (kind: string): CheckpointTensor =>
      tensors.get(`${stem}.${kind}`) ?? refuse(packed, `has no "${stem}.${kind}" beside it`);
    const [scales, zeros] = [part("scales"), part("qzeros")];
    const order = tensors.get(`${stem}.g_idx`);
    const shape = packedShape(packed, quantization);
    const groupSize = quantization.groupSize ?? shape[1];
    checkPacked(packed, scales, zeros, shape, groupSize);
    for (const kind of ["qweight", "scales", "qzeros", "g_idx"]) tensors.delete(`${stem}.${kind}`);
    const { method, zeroOffset } = quantization;
    const storage = { kind: method, scales, zeros, groupSize, zeroOffset, ...order && { order } };
    tensors.set(`${stem}.weight`, { ...packed, dtype: "Q4_1", shape, storage });
  }
  return tensors;
}

/** Rows and columns of the matrix: eight numbers of 4 bits stand in an integer, along the rows in AWQ and along the columns in GPTQ. */
function packedShape(packed: CheckpointTensor, { method }: PackedQuantization): [rows: number, columns: number] {
  const [first = 0, second = 0] = packed.shape;
  if (packed.dtype !== INTEGER || packed.shape.length !== 2) refuse(packed, `is ${packed.dtype} [${packed.shape}]`);
  return method === "awq" ? [8 * second, first] : [second, 8 * first];
}

function checkPacked(
  packed: CheckpointTensor,
  scales: CheckpointTensor,
  zeros: CheckpointTensor,
  [rows, columns]: [number, number],
  groupSize: number,
): void {
  if (columns % BLOCK_SIZE !== 0 || groupSize % BLOCK_SIZE !== 0 || columns % groupSize !== 0) {
    refuse(packed, `has groups of ${groupSize} in rows of ${columns} numbers, expected multiples of ${BLOCK_SIZE}`);
  }
  const groups = columns / groupSize;
  if (scales.shape.join() !== `${groups},${rows}` || !["F16", "BF16", "F32"].includes(scales.dtype)) {
    refuse(scales, `is ${scales.dtype} [${scales.shape}], expected [${groups}, ${rows}]`);
  }
  if (zeros.shape.join() !== `${groups},${rows / 8}` || zeros.dtype !== INTEGER) {
    refuse(zeros, `is ${zeros.dtype} [${zeros.shape}], expected ${INTEGER} [${groups}, ${rows / 8}]`);
  }
}

function refuse({ name, file }: CheckpointTensor, problem: string): never {
  throw new PagesiftError("model", `Cannot use tensor "${shorten(name)}" of "${file}": ${problem}; use another model`);
}
