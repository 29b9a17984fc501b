import { openCheckpoint } from "./checkpoint.ts";
import type { ModelConfig } from "./config.ts";
import { tieEqualWeights } from "./tied_weights.ts";
import { planWeights, type WeightPlan } from "./weight_plan.ts";

/**
 * Plans the weights of a model folder, from the headers of its files and from tied weights that are there twice. The notices are of all
 * of these.
 *
 * @throws {PagesiftError} of kind "model", or the signal's reason when aborted
 */
export async function planFolder(folder: string, config: ModelConfig, signal?: AbortSignal): Promise<WeightPlan> {
  const { tensors, notices } = await openCheckpoint(folder);
  const plan = await tieEqualWeights(config, planWeights(config, tensors), signal);
  return { ...plan, notices: [...notices, ...plan.notices] };
}
