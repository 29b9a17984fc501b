import type { ModelConfig } from "../folder/config.ts";
import { tieEqualWeights } from "../folder/tied_weights.ts";
import { planWeights, type WeightPlan } from "../folder/weight_plan.ts";
import type { WeightFormat } from "../folder/weight_formats.ts";
import type { ModelSource } from "./model_source.ts";

export interface PlanSourceOptions {
  /** What matrices are stored in. Default "auto": what the model has. */
  format?: WeightFormat | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Plans the weights of a model, from the headers of its files and from tied weights that are there twice. The notices are of all of
 * these.
 *
 * @throws {PagesiftError} of kind "model" or "usage", or the signal's reason when aborted
 */
export async function planSource(
  source: ModelSource,
  config: ModelConfig,
  { format = "auto", signal }: PlanSourceOptions = {},
): Promise<WeightPlan> {
  const { tensors, notices, nameOf } = await source.tensors();
  const planned = planWeights(config, tensors, { format, ...nameOf && { nameOf } });
  const plan = await tieEqualWeights(config, planned, signal);
  return { ...plan, notices: [...notices, ...plan.notices] };
}
