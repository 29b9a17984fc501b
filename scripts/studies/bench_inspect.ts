/**
 * Measures the cost of inspection: one prefill, then the same decode steps dense, sparse and inspected in turn.
 *
 *     deno run -A scripts/studies/bench_inspect.ts --text FILE [--tokens 32000] [--steps 16] [--rounds 5] [--device cpu] [--model FOLDER]
 */
import { parseArgs } from "@std/cli/parse-args";
import { Engine } from "../../engine/engine.ts";
import type { PagePolicy } from "../../engine/pages/page_policy.ts";
import type { Sequence } from "../../engine/pages/sequence.ts";
import type { Session } from "../../engine/session.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { PageObserver } from "../../inspect/observer.ts";
import { log, print } from "../output.ts";
import { commit, median, openSequence, proseIds } from "./measure.ts";

const ARMS: Readonly<Record<string, { sparse: SparseOptions; inspected: boolean }>> = {
  dense: { sparse: { mode: "off" }, inspected: false },
  sparse: { sparse: {}, inspected: false },
  inspected: { sparse: {}, inspected: true },
};

/** Seconds for `steps` greedy steps after the prompt. Restores the cache. */
function time(session: Session, sequence: Sequence, policy: PagePolicy, inspected: boolean, steps: number): number {
  const promptTokens = sequence.length;
  using observer = inspected ? new PageObserver(session.pool, policy) : undefined;
  const started = performance.now();
  let id = 1;
  for (let step = 0; step < steps; step++) {
    id = session.step([sequence], [id], policy, observer && { observer }).best.readInts()[0]!;
  }
  const seconds = (performance.now() - started) / 1000;
  session.truncate(sequence, promptTokens);
  return seconds;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["text", "tokens", "steps", "rounds", "device", "model"] });
  const [tokens, steps, rounds] = [flags["tokens"] ?? 32_000, flags["steps"] ?? 16, flags["rounds"] ?? 5].map(Number);
  const device = flags["device"] === "cuda" ? "cuda" : "cpu";
  await using engine = await Engine.load(String(flags["model"] ?? "models/default"), { device });
  const { session, sequence } = openSequence(engine, tokens! + steps!);
  using _session = session;
  log(`Reading ${tokens} tokens`);
  const ids = proseIds(engine, String(flags["text"]), tokens!);
  const started = performance.now();
  await session.prefill(sequence, ids);
  const prefill = (performance.now() - started) / 1000;
  const seconds: Record<string, number[]> = { dense: [], sparse: [], inspected: [] };
  for (let round = 0; round < rounds!; round++) {
    for (const [arm, { sparse, inspected }] of Object.entries(ARMS)) {
      seconds[arm]!.push(time(session, sequence, engine.policy(sparse), inspected, steps!));
    }
  }
  const middle = (arm: string): number => median(seconds[arm]!);
  print(
    `commit ${await commit()}, ${session.facts.device}, ${tokens} tokens, prefill ${
      prefill.toFixed(1)
    } s, ${steps} steps:`,
  );
  for (const arm of Object.keys(ARMS)) {
    const all = (prefill + middle(arm)) / (prefill + middle("dense"));
    print(
      `${arm.padEnd(10)} ${(1000 * middle(arm) / steps!).toFixed(1)} ms per step, with prefill ${
        all.toFixed(3)
      } of dense`,
    );
  }
}

if (import.meta.main) await main();
