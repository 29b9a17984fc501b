import { realModels } from "./real_models.ts";
import type { EndSignal, World } from "./world.ts";

const DEFAULT_COLUMNS = 80;
const END_SIGNALS: readonly EndSignal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];

/** The machine the program runs on. */
export function systemWorld(dieBySignal: (signal: EndSignal) => void): World {
  return {
    stdin: Deno.stdin,
    stdout: Deno.stdout,
    stderr: Deno.stderr,
    models: realModels,
    env: (name) => Deno.env.get(name),
    columns,
    onEndSignal,
    dieBySignal,
  };
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || DEFAULT_COLUMNS;
  } catch {
    return DEFAULT_COLUMNS;
  }
}

/** While listeners stand, a signal does not end the process; the handler's `dieBySignal` needs them gone. */
function onEndSignal(handler: (signal: EndSignal) => void): Disposable {
  const listeners = END_SIGNALS.map((signal) => [signal, () => handler(signal)] as const);
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]: () => {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}
