import type { CheckpointTensor } from "../folder/checkpoint.ts";
import type { ModelConfig } from "../folder/config.ts";
import { shorten } from "../folder/json_file.ts";
import { PagesiftError } from "../errors.ts";
import { EXPERT_TENSORS, type GgufFamily, LAYER_TENSORS, OTHER_TENSORS } from "./families.ts";

const LAYER_NAME = /^blk\.(\d{1,4})\.([a-z_]+)\.(weight|bias)$/;
/** Rows that a rotation turns. */
const ROTATED = /\.self_attn\.[qk]_proj\.(weight|bias)$/;
/** What the config is made of. */
const ROPE_TENSORS = /^rope_(freqs|factors_long|factors_short)\.weight$/;
const NAMES_IN_MESSAGE = 8;

/**
 * The tensors of a GGUF file by the names that Hugging Face checkpoints have for them, experts one by one. Throws a "model" error that
 * names those without a place in the architecture, which would change the result.
 */
export function huggingFaceTensors(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  config: ModelConfig,
  family: GgufFamily,
): Map<string, CheckpointTensor> {
  const found = new Map<string, CheckpointTensor>();
  const unknown: string[] = [];
  for (const tensor of tensors.values()) {
    if (ROPE_TENSORS.test(tensor.name)) continue;
    const experts = expertsOf(tensor);
    const name = huggingFaceName(tensor.name, family);
    if (experts !== undefined) { for (const [expertName, expert] of experts) found.set(expertName, expert); }
    else if (name === undefined) unknown.push(tensor.name);
    else found.set(name, family.interleaved && ROTATED.test(name) ? interleaved(tensor, config) : tensor);
  }
  if (unknown.length === 0) return found;
  const shown = unknown.slice(0, NAMES_IN_MESSAGE).map((name) => `"${shorten(name)}"`).join(", ");
  const more = unknown.length > NAMES_IN_MESSAGE ? ` and ${unknown.length - NAMES_IN_MESSAGE} more` : "";
  throw new PagesiftError(
    "model",
    `The model contains ${unknown.length} tensors that ${config.architecture} does not use: ${shown}${more}`,
  );
}

function huggingFaceName(name: string, { layerTensors = {} }: GgufFamily): string | undefined {
  const [, layer, part = "", kind] = LAYER_NAME.exec(name) ?? [];
  if (layer === undefined) return Object.hasOwn(OTHER_TENSORS, name) ? OTHER_TENSORS[name] : undefined;
  const names = { ...LAYER_TENSORS, ...layerTensors };
  return Object.hasOwn(names, part) ? `model.layers.${Number(layer)}.${names[part]}.${kind}` : undefined;
}

function interleaved(tensor: CheckpointTensor, { headDim }: ModelConfig): CheckpointTensor {
  return { ...tensor, storage: { kind: "interleaved", headDim } };
}

/** The matrices of a tensor of all experts, `[experts, rows, columns]`; undefined for another tensor. */
function expertsOf(tensor: CheckpointTensor): [string, CheckpointTensor][] | undefined {
  const [, layer, part = ""] = LAYER_NAME.exec(tensor.name) ?? [];
  const [count = 0, ...shape] = tensor.shape;
  if (layer === undefined || !Object.hasOwn(EXPERT_TENSORS, part) || shape.length !== 2) return undefined;
  const bytes = tensor.bytes / count;
  return Array.from({ length: count }, (_, index) => [
    `model.layers.${Number(layer)}.mlp.experts.${index}.${EXPERT_TENSORS[part]}.weight`,
    { ...tensor, shape, bytes, offsetBytes: tensor.offsetBytes + index * bytes },
  ]);
}

/** The name in a GGUF file of a tensor of a Hugging Face checkpoint. */
export function ggufTensorName(name: string, { layerTensors = {} }: GgufFamily): string {
  const [, layer, part = "", kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (layer === undefined) return keyOf(OTHER_TENSORS, name) ?? name;
  const [, expert] = /^mlp\.experts\.\d+\.(\w+)$/.exec(part) ?? [];
  const ours = expert === undefined
    ? keyOf({ ...LAYER_TENSORS, ...layerTensors }, part)
    : keyOf(EXPERT_TENSORS, expert);
  return ours === undefined ? name : `blk.${layer}.${ours}.${kind}`;
}

function keyOf(names: Readonly<Record<string, string>>, value: string): string | undefined {
  return Object.keys(names).find((key) => names[key] === value);
}
