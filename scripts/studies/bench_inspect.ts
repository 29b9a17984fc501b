/**
 * What inspecting decode steps costs: one prefill, then the same steps dense, sparse and inspected in turn.
 *
 *     deno run -A scripts/studies/bench_inspect.ts --text FILE [--tokens 32000] [--steps 16] [--rounds 5] [--device cpu] [--model FOLDER]
 */
import { parseArgs } from "@std/cli/parse-args";
import { DecodeBatch } from "../../engine/decode_batch.ts";
import { Engine } from "../../engine/engine.ts";
import { StepRunner } from "../../engine/step_runner.ts";
import type { SparseOptions } from "../../engine/types.ts";
import { PageObserver } from "../../inspect/observer.ts";
import { log, print } from "../support/lines.ts";
import { commit, DecodeSession, median, proseIds } from "./session.ts";

const ARMS: Readonly<Record<string, { sparse: SparseOptions; inspected: boolean }>> = {
  dense: { sparse: { mode: "off" }, inspected: false },
  sparse: { sparse: {}, inspected: false },
  inspected: { sparse: {}, inspected: true },
};

/** Seconds of `steps` greedy steps behind the prompt, after which the cache is as before. */
function time(session: DecodeSession, arm: string, promptTokens: number, steps: number): number {
  const { engine: { model, device }, pool, sequence } = session;
  const { sparse, inspected } = ARMS[arm]!;
  const policy = session.policy(sparse);
  const observer = inspected ? new PageObserver(pool, policy) : undefined;
  const batch = new DecodeBatch(device, pool, policy);
  const runner = new StepRunner(model, pool, policy, observer);
  const started = performance.now();
  let id = 1;
  for (let step = 0; step < steps; step++) id = runner.run(batch.advance([sequence], [id])).best.readInts()[0]!;
  const seconds = (performance.now() - started) / 1000;
  observer?.close();
  runner.close();
  batch.close();
  session.rewind(promptTokens);
  return seconds;
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["text", "tokens", "steps", "rounds", "device", "model"] });
  const [tokens, steps, rounds] = [flags["tokens"] ?? 32_000, flags["steps"] ?? 16, flags["rounds"] ?? 5].map(Number);
  const device = flags["device"] === "cuda" ? "cuda" : "cpu";
  await using engine = await Engine.load(String(flags["model"] ?? "models/default"), { device });
  using session = new DecodeSession(engine, tokens! + steps!);
  log(`Reading ${tokens} tokens`);
  const prefill = await session.prefill(proseIds(engine, String(flags["text"]), tokens!), session.policy({}));
  const seconds: Record<string, number[]> = { dense: [], sparse: [], inspected: [] };
  for (let round = 0; round < rounds!; round++) {
    for (const arm of Object.keys(ARMS)) seconds[arm]!.push(time(session, arm, tokens!, steps!));
  }
  const middle = (arm: string): number => median(seconds[arm]!);
  print(
    `commit ${await commit()}, ${engine.facts.device}, ${tokens} tokens, prefill ${
      prefill.toFixed(1)
    } s, ${steps} steps:`,
  );
  for (const arm of Object.keys(ARMS)) {
    const all = (prefill + middle(arm)) / (prefill + middle("dense"));
    print(
      `${arm.padEnd(10)} ${(1000 * middle(arm) / steps!).toFixed(1)} ms a step, with prefill ${
        all.toFixed(3)
      } of dense`,
    );
  }
}

if (import.meta.main) await main();
