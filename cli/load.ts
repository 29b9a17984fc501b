import type { ModelSparsity } from "../engine/folder/sparsity_file.ts";
import type { SparseOptions } from "../engine/types.ts";
import type { EnginePort, LoadOptions } from "./engine_port.ts";
import type { GenerateFlags } from "./options/generate.ts";
import type { Progress } from "./progress.ts";
import { promptCacheOf } from "./prompt_cache.ts";
import { shippedPath } from "./shipped.ts";
import type { CommandRun } from "./command_run.ts";

/** Flags that say which model to load and where to run it. */
export type LoadFlags = Pick<
  GenerateFlags,
  | "model"
  | "adapter"
  | "ctxSize"
  | "weights"
  | "kvType"
  | "device"
  | "devices"
  | "threads"
  | "revision"
  | "offline"
  | "promptCache"
  | "promptCacheLimit"
>;

/** A model that is ready to run. */
export interface LoadedModel {
  engine: EnginePort;
  /** The model as the user named it, for the stats. */
  name: string;
  /** Length of the context in tokens. */
  limit: number;
}

/** Finds the folder of the flags' model; downloads it if it is a hub name. */
export async function findModel(
  flags: Partial<Pick<LoadFlags, "model" | "revision" | "offline">>,
  { world, interrupt }: CommandRun,
  progress: Progress,
): Promise<{ folder: string; name: string; label: string }> {
  const named = flags.model ?? (world.env("PAGESIFT_MODEL") || undefined);
  const folder = await interrupt.race(world.models.findModelFolder(named ?? shippedPath("models/default"), {
    offline: flags.offline ?? false,
    signal: interrupt.signal,
    onProgress: (state) => progress.download(state),
    ...flags.revision !== undefined && { revision: flags.revision },
  }));
  return { folder, name: named ?? "default", label: named ?? "the default model" };
}

/** Finds and loads the model of the flags. */
export async function loadModel(
  flags: LoadFlags,
  sparse: SparseOptions,
  session: CommandRun,
  progress: Progress,
): Promise<LoadedModel> {
  const { world, interrupt, output } = session;
  const { folder, name, label } = await findModel(flags, session, progress);
  progress.stage(`Loading ${label}`);
  const engine = await interrupt.race(
    world.models.loadEngine(folder, {
      ...loadOptions(flags, sparse),
      ...promptCacheOf(flags, name, session),
      signal: interrupt.signal,
    }),
  );
  output.clearStatus();
  output.notices(engine.notices);
  if (engine.sparsity !== undefined) output.stage(sparsityLine(engine.sparsity));
  const limit = Math.min(flags.ctxSize || Infinity, engine.config.maxContext);
  return { engine, name, limit };
}

/** The defaults of a model that was trained for sparse attention. */
function sparsityLine({ defaults, method }: ModelSparsity): string {
  const { budgetTokens, pageSize, scorer, lambda } = defaults;
  const score = `${scorer}${lambda === undefined ? "" : ` ${lambda}`}`;
  return `Sparse defaults of the model: budget ${budgetTokens} tokens, ${pageSize} tokens per page, scorer ${score}${
    method && `; ${method}`
  }`;
}

function loadOptions(flags: LoadFlags, sparse: SparseOptions): LoadOptions {
  return {
    device: flags.device,
    devices: flags.devices,
    weights: flags.weights,
    kvType: flags.kvType,
    sparse,
    ...flags.adapter !== undefined && { adapter: flags.adapter },
    ...flags.ctxSize > 0 && { maxContext: flags.ctxSize },
    ...flags.threads !== undefined && { threads: flags.threads },
  };
}
