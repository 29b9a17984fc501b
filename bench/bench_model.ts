/** The model that `bench generate` runs: loaded from a folder, or a shape with random weights. */
import { basename } from "@std/path";
import type { ModelConfig } from "../engine/folder/config.ts";
import { type DeviceChoice, openDevice } from "../engine/devices.ts";
import { openModelSource } from "../engine/source/model_source.ts";
import { planSource } from "../engine/source/plan_source.ts";
import type { ModelSparsity } from "../engine/folder/sparsity_file.ts";
import type { WeightPlan } from "../engine/folder/weight_plan.ts";
import { WEIGHT_FORMATS } from "../engine/folder/weight_formats.ts";
import { LoadedModel } from "../engine/loaded_model.ts";
import { checkWeightsFit } from "../engine/memory.ts";
import { type KvFormat, kvFormat, type KvType } from "../engine/pages/kv_type.ts";
import type { Notice } from "../engine/types.ts";
import { shardModel } from "../engine/shards.ts";
import { stepBytes, weightBytes, Weights } from "../engine/weights.ts";
import { usageError } from "./lists.ts";
import { modelSha256 } from "./model_hash.ts";
import { randomWeights } from "./random_weights.ts";
import { configOf, planShape, type ShapeFormat } from "./shapes.ts";

/** Which model, and where. */
export interface ModelChoice {
  /** Either a folder or a shape. */
  folder?: string | undefined;
  shape?: string | undefined;
  /** The name from the command line. */
  name: string;
  device: DeviceChoice;
  threads: number | undefined;
  /** GPUs by number that share the model. */
  devices?: readonly number[];
  /** Folder of a LoRA adapter that is merged into the weights of `folder`. */
  adapter?: string | undefined;
  /** What matrices are stored in. Default `auto`: what the files have, bf16 for a shape. */
  weights?: ShapeFormat;
  /** What keys and values are stored in. Default `auto`. */
  kvType?: KvType;
}

/** A model before its weights are on the device. */
export interface PlannedModel {
  config: ModelConfig;
  plan: WeightPlan;
  kv: KvFormat;
  /** How the model was trained to be read sparsely; undefined where nothing says so. */
  sparsity: ModelSparsity | undefined;
  /** Bytes of all weights, of each device in a group. */
  weightBytes: number;
}

/** A model that is ready to run. */
export interface BenchModel extends AsyncDisposable {
  name: string;
  sha256: string | undefined;
  notices: readonly Notice[];
  loaded: LoadedModel;
  /** Bytes of weights that a step reads; undefined if it depends on the routing of experts. */
  stepWeightBytes: number | undefined;
}

/** Reads config and headers, and tied weights that are there twice. @param longest tokens that a sequence reaches, the context of a shape */
export async function planModel(
  { folder, adapter, shape, weights = "auto", kvType = "auto", devices = [] }: ModelChoice,
  longest: number,
): Promise<PlannedModel> {
  if (folder !== undefined) {
    const format = WEIGHT_FORMATS.find((one) => one === weights);
    if (format === undefined) {
      throw usageError(`--weights ${weights} requires --shape; a model takes one of ${WEIGHT_FORMATS.join(", ")}`);
    }
    const source = await openModelSource(folder, adapter);
    const whole = await planSource(source, source.config, { format });
    return { ...plannedShare(source.config, whole, kvType, devices.length), sparsity: source.sparsity };
  }
  const config = configOf(shape ?? "", longest);
  return { ...plannedShare(config, planShape(config, weights), kvType, devices.length), sparsity: undefined };
}

/** What each device has of a model. */
function plannedShare(
  whole: ModelConfig,
  wholePlan: WeightPlan,
  kvType: KvType,
  numDevices: number,
): Omit<PlannedModel, "sparsity"> {
  const { config, plan } = shardModel(whole, wholePlan, numDevices || 1);
  return { config, plan, kv: kvFormat(kvType, plan.dtype), weightBytes: weightBytes(plan) };
}

/** @param batch the most sequences that decode together */
export async function openModel(choice: ModelChoice, planned: PlannedModel, batch: number): Promise<BenchModel> {
  const { config, plan, kv, weightBytes } = planned;
  const { folder, name } = choice;
  const { device, notices } = openDevice(choice.device, choice.threads, undefined, choice.devices);
  try {
    checkWeightsFit(device, weightBytes);
    const weights = folder === undefined ? randomWeights(device, plan) : await Weights.load(device, plan);
    const loaded = LoadedModel.create(device, config, weights, kv, { maxBatch: batch });
    return {
      name: folder === undefined ? name : basename(name),
      sha256: folder === undefined ? undefined : await modelSha256(folder),
      notices: [...plan.notices, ...notices],
      loaded,
      stepWeightBytes: config.moe ? undefined : stepBytes(plan.tensors, config),
      [Symbol.asyncDispose]: () => loaded[Symbol.asyncDispose](),
    };
  } catch (error) {
    device.close();
    throw error;
  }
}
