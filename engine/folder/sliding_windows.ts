import type { Family } from "./architectures.ts";
import type { ConfigFields, Range } from "./config_fields.ts";

const WINDOW: Range = { min: 1, max: 1_000_000_000 };
const LAYER_COUNT: Range = { min: 0, max: 1_000_000 };
const PATTERN: Range = { min: 1, max: 1_000_000 };
const DEFAULT_PATTERN = 6;

/** Which layers have a sliding window, and its size. */
export interface SlidingWindow {
  /** Tokens; 0 is all, also for a window that the whole context fits in. */
  readonly size: number;
  /** `[numLayers]` */
  readonly slides: readonly boolean[];
}

/** @param unrotated `[numLayers]`, the layers that slide where the family has such ones and lists no layer types */
export function parseWindow(
  fields: ConfigFields,
  family: Family,
  maxContext: number,
  unrotated: readonly boolean[],
): SlidingWindow {
  const window = modelWindow(fields, family);
  const size = window === undefined || window >= maxContext ? 0 : window;
  return { size, slides: slidingLayers(fields, family, window, unrotated) };
}

/** Undefined if no layer has a window. */
function modelWindow(fields: ConfigFields, family: Family): number | undefined {
  if (family.windows === "none") return undefined;
  const always = family.windows === "all" || family.windows === "pattern";
  if (!always && !fields.flag("use_sliding_window", false)) return undefined;
  if (fields.json["sliding_window"] === null) return undefined;
  return fields.has("sliding_window") ? fields.count("sliding_window", WINDOW) : family.defaultWindow;
}

function slidingLayers(
  fields: ConfigFields,
  family: Family,
  window: number | undefined,
  unrotated: readonly boolean[],
): boolean[] {
  const numLayers = unrotated.length;
  const layers = (slides: (layer: number) => boolean): boolean[] => Array.from(unrotated, (_, layer) => slides(layer));
  if (family.windows !== "per layer" && family.windows !== "pattern") return layers(() => true);
  if (fields.has("layer_types")) return listedLayers(fields, numLayers, window);
  if (family.windows === "pattern") {
    const pattern = fields.count("sliding_window_pattern", PATTERN, DEFAULT_PATTERN);
    return layers((layer) => (layer + 1) % pattern !== 0);
  }
  if (family.rotations === "listed") return [...unrotated];
  const first = window === undefined ? numLayers : fields.count("max_window_layers", LAYER_COUNT, 28);
  return layers((layer) => layer >= first);
}

function listedLayers(fields: ConfigFields, numLayers: number, window: number | undefined): boolean[] {
  const types = fields.list("layer_types", "a list of full_attention and sliding_attention", isLayerType);
  if (types.length !== numLayers) fields.refuse("layer_types", `a list of "num_hidden_layers" (${numLayers}) items`);
  const slides = types.map((type) => type === "sliding_attention");
  if (window === undefined && slides.includes(true)) fields.refuse("sliding_window", 'set for "sliding_attention"');
  return slides;
}

function isLayerType(item: unknown): item is "full_attention" | "sliding_attention" {
  return item === "full_attention" || item === "sliding_attention";
}
