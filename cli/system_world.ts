import type { EnginePort, FindModelOptions, LoadOptions, ModelSource } from "./engine_port.ts";
import type { EndSignal, KeyMode, World } from "./world.ts";

const DEFAULT_COLUMNS = 80;
const END_SIGNALS: readonly EndSignal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];

/** The machine the program runs on. */
export function systemWorld(dieBySignal: (signal: EndSignal) => void): World {
  return {
    stdin: Deno.stdin,
    stdout: Deno.stdout,
    stderr: Deno.stderr,
    models: { ...realModels, findModelFolder },
    env: (name) => Deno.env.get(name),
    columns,
    onEndSignal,
    setKeyMode,
    suspend: () => Deno.kill(Deno.pid, "SIGTSTP"),
    dieBySignal: (signal) => {
      if (Deno.stdin.isTerminal()) setKeyMode("lines"); // the shell gets its terminal back as it was
      dieBySignal(signal);
    },
  };
}

function setKeyMode(mode: KeyMode): void {
  if (mode === "lines") Deno.stdin.setRaw(false);
  else Deno.stdin.setRaw(true, { cbreak: mode === "signals" });
}

/**
 * Finds a model, then revokes network access for good, since model files are untrusted. A command looks for one model, and only a
 * download uses the network.
 */
const findModelFolder: ModelSource["findModelFolder"] = async (nameOrPath, options) => {
  const folder = await realModels.findModelFolder(nameOrPath, options);
  await Deno.permissions.revoke({ name: "net" });
  return folder;
};

function columns(): number {
  try {
    return Deno.consoleSize().columns || DEFAULT_COLUMNS;
  } catch {
    return DEFAULT_COLUMNS;
  }
}

/** While listeners are installed, a signal does not end the process; the handler's `dieBySignal` requires that they are removed. */
function onEndSignal(handler: (signal: EndSignal) => void): Disposable {
  const listeners = END_SIGNALS.map((signal) => [signal, () => handler(signal)] as const);
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]: () => {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}

/** The engine is imported when a model is requested, so that `--help` does not load it. */
export const realModels: ModelSource = { findModelFolder: findFolder, loadEngine };

async function findFolder(nameOrPath: string, options: FindModelOptions): Promise<string> {
  const hub = await import("../engine/hub/find.ts");
  return await hub.findModelFolder(nameOrPath, { ...options, env: Deno.env.toObject() });
}

async function loadEngine(folder: string, options: LoadOptions): Promise<EnginePort> {
  const { Engine } = await import("../engine/engine.ts");
  return await Engine.load(folder, options);
}

/** The command line, for provenance. */
export function commandLine(): string {
  const quoted = Deno.args.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
  return ["pagesift", ...quoted].join(" ");
}
