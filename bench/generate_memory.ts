/** Checks that the weights and the largest pool of `bench generate` fit together. */
import { cacheShape } from "../engine/pages/kv_pool.ts";
import { PagesiftError } from "../engine/errors.ts";
import type { Device } from "../ffi/device.ts";
import type { CacheShape } from "../ffi/structs.ts";
import type { PlannedModel } from "./bench_model.ts";
import { caseNeed, decodeArms, type GenerateCase, type GeneratePlan } from "./generate_plan.ts";
import { peakBytes } from "./peak.ts";
import { cacheBytes, largestThat } from "../engine/memory.ts";
import { cacheSplit, sizeText, waysText } from "./memory.ts";

/** Share of the free memory; activations and the needs of the system come on top. */
const SHARE_OF_FREE = 0.95;

function shapeOfCase(
  plan: GeneratePlan,
  one: GenerateCase,
  { config, kv }: PlannedModel,
  groups: boolean,
): CacheShape {
  const { need, extra } = caseNeed(plan, one);
  return cacheShape(config, kv, decodeArms(plan, one, config, groups)[0].policy, need, extra);
}

/** @throws {PagesiftError} of kind "memory" with the split, and the batch or depth that would fit */
export function checkGenerateFits(device: Device, plan: GeneratePlan, planned: PlannedModel): void {
  const info = device.describe();
  const { availableBytes, backend } = info;
  const room = (availableBytes - peakBytes(info)) * SHARE_OF_FREE;
  const shapeOf = (one: GenerateCase): CacheShape => shapeOfCase(plan, one, planned, backend === "cuda");
  const fits = (one: GenerateCase): boolean => cacheBytes(device, shapeOf(one)) + planned.weightBytes <= room;
  const wrong = plan.cases.find((one) => !fits(one));
  if (wrong === undefined) return;
  const ways = waysText([
    ["--batch", largestThat((batch) => fits({ ...wrong, batch }), wrong.batch)],
    ["-d", largestThat((depthTokens) => fits({ ...wrong, depthTokens }), wrong.depthTokens)],
  ]);
  const split = `weights ${sizeText(planned.weightBytes)}, ${cacheSplit(device, shapeOf(wrong))}`;
  throw new PagesiftError(
    "memory",
    `Not enough memory for --batch ${wrong.batch} -d ${wrong.depthTokens}: ${split}, of ${
      sizeText(room)
    } usable${ways}`,
  );
}
