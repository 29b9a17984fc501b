import type { ModelConfig } from "./folder/config.ts";
import { usesLongFactors } from "./folder/rope.ts";
import type { LayerPolicy, PagePolicy } from "./pages/page_policy.ts";
import { describeSampling } from "./sample/sampling_defaults.ts";
import { formatCount, plural } from "./text/format.ts";
import type { Notice, SamplingOptions } from "./types.ts";

/** What those who ask for details should know of how a model runs. */
export function modelNotices(
  config: ModelConfig,
  trainedContext: number,
  policy: PagePolicy,
  sampling: SamplingOptions,
): Notice[] {
  const texts = [layersText(policy), longRopeText(config, trainedContext), samplingText(sampling)];
  return texts.flatMap((text): Notice[] => text === undefined ? [] : [{ level: "info", text }]);
}

/** How many layers attend in which way; undefined where all read the whole context or all select pages. */
function layersText({ layers }: PagePolicy): string | undefined {
  const count = (kind: LayerPolicy["kind"]): number => layers.filter((layer) => layer.kind === kind).length;
  const [windowed, dense, selecting] = [count("window"), count("dense"), count("sparse")];
  if (dense === layers.length || selecting === layers.length) return undefined;
  const windows = layers.flatMap((layer) => layer.kind === "window" ? [formatCount(layer.tokens)] : []);
  const size = windowed === 0 ? "" : ` (${[...new Set(windows)].join(", ")} tokens)`;
  return `${plural(layers.length, "layer")}: ${windowed} with a sliding window${size}, ${dense} dense, ` +
    `${selecting} selecting pages`;
}

function longRopeText({ rope, maxContext }: ModelConfig, trainedContext: number): string | undefined {
  if (rope.type !== "longrope") return undefined;
  const original = rope.originalMaxContext ?? trainedContext;
  return usesLongFactors(rope, trainedContext, maxContext)
    ? `LongRoPE with the long factors, for a context of more than ${formatCount(original)} tokens; ` +
      `--ctx-size ${original} selects the short ones`
    : `LongRoPE with the short factors, for a context of up to ${formatCount(original)} tokens`;
}

function samplingText(sampling: SamplingOptions): string | undefined {
  return sampling.temperature === undefined
    ? undefined
    : `Sampling defaults of the model: ${describeSampling(sampling)}`;
}
