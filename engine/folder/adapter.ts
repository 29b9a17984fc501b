import { join } from "@std/path";
import { PagesiftError } from "../errors.ts";
import type { CheckpointTensor } from "./checkpoint.ts";
import { ConfigFields } from "./config_fields.ts";
import { readJsonFile, shorten, statOrUndefined } from "./json_file.ts";
import { readSafetensorsHeader, type TensorEntry } from "./safetensors.ts";
import { type ModelSparsity, readSparsity } from "./sparsity_file.ts";
import { isPlain, weightDType } from "./weight_formats.ts";

/** What an adapter adds to a weight `[N, K]`: scale * up * down. */
export interface WeightChange {
  /** The weight without the adapter, as its file has it. */
  readonly base: CheckpointTensor;
  /** `[rank, K]` */
  readonly down: TensorEntry;
  /** `[N, rank]` */
  readonly up: TensorEntry;
  readonly scale: number;
}

/** A LoRA adapter in the layout of the PEFT library. */
export interface Adapter {
  readonly folder: string;
  /** By the names of a Hugging Face checkpoint, such as `model.layers.0.mlp.up_proj.weight`. */
  readonly changes: ReadonlyMap<string, Omit<WeightChange, "base">>;
  /** How the model with this adapter was trained to be read; undefined without a `sparsity.json` beside it. */
  readonly sparsity: ModelSparsity | undefined;
}

export const ADAPTER_CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
const TENSOR_NAME = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/;
const RANK = { min: 1, max: 65_536 };
const ALPHA = { min: -1e6, max: 1e6 };
/** Ways to begin training that leave the base model as it is. PiSSA, OLoRA and others change it. */
const PLAIN_STARTS = [true, false, undefined, null, "gaussian", "eva", "orthogonal"];
/** Fields that would change what an adapter computes, and the only value of each that this program computes. */
const PLAIN_FIELDS: Readonly<Record<string, boolean | "none">> = {
  bias: "none",
  fan_in_fan_out: false,
  use_dora: false,
  lora_bias: false,
};
/** Fields that name further tensors or ranks of their own: empty or null where an adapter has none. */
const EMPTY_FIELDS = [
  "modules_to_save",
  "rank_pattern",
  "alpha_pattern",
  "target_parameters",
  "trainable_token_indices",
];

/**
 * Reads what an adapter folder says of its tensors, without their numbers.
 *
 * @throws {PagesiftError} of kind "model" that names the file, and the field or tensor at fault
 */
export async function readAdapter(folder: string): Promise<Adapter> {
  const file = join(folder, ADAPTER_CONFIG);
  const json = await readJsonFile(file);
  if (json === undefined) {
    const problem = await statOrUndefined(folder) === undefined ? "no such folder" : `it has no "${ADAPTER_CONFIG}"`;
    throw new PagesiftError(
      "model",
      `Cannot read adapter "${folder}": ${problem}; expected a folder in the layout of PEFT`,
    );
  }
  const { rank, scale } = readConfig(new ConfigFields(json, file));
  const { tensors } = await readSafetensorsHeader(join(folder, WEIGHTS));
  return { folder, changes: pairsOf(folder, tensors, rank, scale), sparsity: await readSparsity(folder) };
}

function readConfig(fields: ConfigFields): { rank: number; scale: number } {
  if (fields.text("peft_type") !== "LORA") fields.refuse("peft_type", '"LORA"');
  for (const [name, expected] of Object.entries(PLAIN_FIELDS)) {
    if ((fields.json[name] ?? expected) !== expected) fields.refuse(name, `${JSON.stringify(expected)} or nothing`);
  }
  for (const name of EMPTY_FIELDS) {
    if (Object.keys(fields.json[name] ?? {}).length > 0) fields.refuse(name, "empty");
  }
  const start = fields.json["init_lora_weights"];
  if (!PLAIN_STARTS.some((one) => one === start)) {
    fields.refuse("init_lora_weights", "one that leaves the base model as it is (convert the adapter to a plain LoRA)");
  }
  const rank = fields.count("r", RANK);
  const scale = fields.number("lora_alpha", ALPHA) / (fields.flag("use_rslora", false) ? Math.sqrt(rank) : rank);
  return { rank, scale };
}

/** Both halves of every change, by the name of the weight. */
function pairsOf(
  folder: string,
  tensors: ReadonlyMap<string, TensorEntry>,
  rank: number,
  scale: number,
): Adapter["changes"] {
  const refuse = (problem: string): never => {
    throw new PagesiftError("model", `Cannot read adapter "${folder}": ${problem}`);
  };
  const halves = new Map<string, { A?: TensorEntry; B?: TensorEntry }>();
  for (const entry of tensors.values()) {
    const [, target, half] = TENSOR_NAME.exec(entry.name) ?? [];
    if (target === undefined) refuse(`tensor "${shorten(entry.name)}" is no LoRA matrix of a projection`);
    const dtype = weightDType(entry.dtype);
    if (dtype === undefined || !isPlain(dtype)) {
      refuse(`tensor "${shorten(entry.name)}" is ${entry.dtype}, expected F32, F16 or BF16`);
    }
    halves.set(`${target}.weight`, { ...halves.get(`${target}.weight`), [half as "A" | "B"]: entry });
  }
  if (halves.size === 0) refuse(`"${WEIGHTS}" contains no tensors`);
  return new Map([...halves].map(([name, { A: down, B: up }]) => {
    if (down === undefined || up === undefined) return refuse(`"${shorten(name)}" has lora_${down ? "A" : "B"} alone`);
    if (down.shape.length !== 2 || up.shape.length !== 2 || down.shape[0] !== rank || up.shape[1] !== rank) {
      return refuse(
        `"${shorten(name)}" has matrices [${down.shape.join(", ")}] and [${
          up.shape.join(", ")
        }], expected the rank ${rank}`,
      );
    }
    return [name, { down, up, scale }];
  }));
}

/**
 * The tensors of a model with an adapter's changes. A weight of 16 or 32 bits keeps its dtype; a quantised one becomes bf16, since blocks
 * of few bits would round away most of what the adapter adds.
 *
 * @throws {PagesiftError} of kind "model" where the adapter belongs to a model of another shape
 */
export function withAdapter(
  tensors: ReadonlyMap<string, CheckpointTensor>,
  { folder, changes }: Adapter,
): ReadonlyMap<string, CheckpointTensor> {
  const adapted = [...changes].map(([name, change]): [string, CheckpointTensor] => {
    const base = tensors.get(name);
    const expected = [change.up.shape[0], change.down.shape[1]].join(", ");
    if (base === undefined || base.shape.join(", ") !== expected) {
      const found = base === undefined ? "the model has no such tensor" : `the model's is [${base.shape.join(", ")}]`;
      const problem = `it changes "${shorten(name)}" [${expected}], but ${found}`;
      throw new PagesiftError("model", `Adapter "${folder}" belongs to another model: ${problem}`);
    }
    const dtype = weightDType(base.dtype);
    return [name, { ...base, dtype: dtype && !isPlain(dtype) ? "BF16" : base.dtype, change: { base, ...change } }];
  });
  return new Map([...tensors, ...adapted]);
}
