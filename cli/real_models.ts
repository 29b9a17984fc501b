import type { EnginePort, FindModelOptions, LoadOptions, ModelSource } from "./engine_port.ts";

/** The engine is imported when a model is asked for, so that `--help` needs none of it. */
export const realModels: ModelSource = { findModelFolder, loadEngine };

async function findModelFolder(nameOrPath: string, options: FindModelOptions): Promise<string> {
  const hub = await import("../engine/hub.ts");
  return await hub.findModelFolder(nameOrPath, { ...options, env: Deno.env.toObject() });
}

async function loadEngine(folder: string, options: LoadOptions): Promise<EnginePort> {
  const { Engine } = await import("../engine/engine.ts");
  return await Engine.load(folder, options);
}
