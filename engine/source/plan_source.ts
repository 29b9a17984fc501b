import type { ModelConfig } from "../folder/config.ts";
import { tieEqualWeights } from "../folder/tied_weights.ts";
import { planWeights, type WeightPlan } from "../folder/weight_plan.ts";
import type { ModelSource } from "./model_source.ts";

/**
 * Plans the weights of a model, from the headers of its files and from tied weights that are there twice. The notices are of all of
 * these.
 *
 * @throws {PagesiftError} of kind "model", or the signal's reason when aborted
 */
export async function planSource(source: ModelSource, config: ModelConfig, signal?: AbortSignal): Promise<WeightPlan> {
  const { tensors, notices } = await source.tensors();
  const plan = await tieEqualWeights(config, planWeights(config, tensors), signal);
  return { ...plan, notices: [...notices, ...plan.notices] };
}
