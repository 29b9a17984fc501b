import type { Family } from "./architectures.ts";
import type { ConfigFields, Range } from "./config_fields.ts";

/** How a layer rotates queries and keys: as the config's `rope`, its `localRope`, or not at all. */
export type LayerRotation = "global" | "local" | "none";

const INTERVAL: Range = { min: 1, max: 1_000_000 };
const DEFAULT_INTERVAL = 4;

/** Whether a layer leaves queries and keys unrotated, `[numLayers]`. */
export function unrotatedLayers(fields: ConfigFields, family: Family, numLayers: number): boolean[] {
  if (family.rotations !== "listed") return new Array(numLayers).fill(false);
  if (!fields.has("no_rope_layers")) {
    const interval = fields.count("no_rope_layer_interval", INTERVAL, DEFAULT_INTERVAL);
    return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval === 0);
  }
  const rotated = fields.list("no_rope_layers", "a list of 0 and 1", isBit);
  if (rotated.length < numLayers) fields.refuse("no_rope_layers", `a list of ${numLayers} items, one per layer`);
  return rotated.slice(0, numLayers).map((bit) => bit === 0);
}

/** The rotation of every layer, from whether it has a sliding window and whether it has no rotation, `[numLayers]` each. */
export function layerRotations(
  family: Family,
  slides: readonly boolean[],
  unrotated: readonly boolean[],
): LayerRotation[] {
  return slides.map((isLocal, layer) => {
    if (unrotated[layer]) return "none";
    return isLocal && family.rotations === "by window" ? "local" : "global";
  });
}

/** In the field `no_rope_layers`, despite its name, 1 stands for a layer with a rotation. */
function isBit(item: unknown): item is 0 | 1 {
  return item === 0 || item === 1;
}
