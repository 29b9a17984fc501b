import type { Family } from "./architectures.ts";
import type { ConfigFields, Range } from "./config_fields.ts";

const WINDOW: Range = { min: 1, max: 1_000_000_000 };
const LAYER_COUNT: Range = { min: 0, max: 1_000_000 };

/** Tokens that each layer attends to, `[numLayers]`; 0 is all, also for a window that the whole context fits in. */
export function parseWindows(fields: ConfigFields, family: Family, numLayers: number, maxContext: number): number[] {
  const window = modelWindow(fields, family);
  const size = window === undefined || window >= maxContext ? 0 : window;
  if (family.windows !== "per layer") return new Array(numLayers).fill(size);
  return slidingLayers(fields, numLayers, window).map((slides) => slides ? size : 0);
}

/** Undefined if no layer has a window. */
function modelWindow(fields: ConfigFields, family: Family): number | undefined {
  if (family.windows === "none") return undefined;
  if (family.windows !== "all" && !fields.flag("use_sliding_window", false)) return undefined;
  if (fields.json["sliding_window"] === null) return undefined;
  return fields.has("sliding_window") ? fields.count("sliding_window", WINDOW) : family.defaultWindow;
}

function slidingLayers(fields: ConfigFields, numLayers: number, window: number | undefined): boolean[] {
  if (!fields.has("layer_types")) {
    const first = window === undefined ? numLayers : fields.count("max_window_layers", LAYER_COUNT, 28);
    return Array.from({ length: numLayers }, (_, layer) => layer >= first);
  }
  const types = fields.list("layer_types", "a list of full_attention and sliding_attention", isLayerType);
  if (types.length !== numLayers) fields.refuse("layer_types", `a list of "num_hidden_layers" (${numLayers}) items`);
  const slides = types.map((type) => type === "sliding_attention");
  if (window === undefined && slides.includes(true)) fields.refuse("sliding_window", 'set for "sliding_attention"');
  return slides;
}

function isLayerType(item: unknown): item is "full_attention" | "sliding_attention" {
  return item === "full_attention" || item === "sliding_attention";
}
