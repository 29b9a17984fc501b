/**
 * Measures the time until each of several prompts has its first token, with prompts read one by one and together.
 *
 *     deno run -A scripts/studies/joint_prompts.ts [MODEL] [--device cpu] [--prompts 16] [--tokens 32,64,128,512] [--repetitions 9]
 *
 * The arms alternate in one process, with prompts of random ids that share nothing. One by one is `parallel: 1`: with answers of one token,
 * each request ends before the next one starts.
 */
import { parseArgs } from "@std/cli/parse-args";
import type { DeviceChoice } from "../../engine/devices.ts";
import { Engine } from "../../engine/engine.ts";
import { Request } from "../../engine/request.ts";
import { Random } from "../../engine/sample/random.ts";
import type { Session } from "../../engine/session.ts";
import { print } from "../output.ts";
import { commit, median } from "./measure.ts";

const ARMS = { "one by one": { parallel: 1 }, together: {} } as const;

/** Milliseconds until all requests have their first and only token. */
async function measure(
  engine: Engine,
  session: Session,
  prompts: number[][],
  run: { parallel?: number },
): Promise<number> {
  const limits = { eosTokenIds: [], maxContext: engine.config.maxContext };
  const requests = prompts.map((ids, index) =>
    new Request(index, ids, { maxTokens: 1 }, engine.tokenizer.stream(), limits)
  );
  const started = performance.now();
  let numEnded = 0;
  for await (const { finish } of session.generate(requests, session.policy, run)) if (finish === "length") numEnded++;
  const took = performance.now() - started;
  if (numEnded < prompts.length) throw new Error(`${numEnded} of ${prompts.length} requests have an answer`);
  return took;
}

async function study(engine: Engine, numPrompts: number, tokens: number, repetitions: number): Promise<void> {
  const need = { totalTokens: numPrompts * (tokens + 16), longestTokens: tokens + 16, maxSequences: numPrompts };
  using session = engine.openSession(engine.policy(), need);
  const random = new Random(7);
  const id = (): number => 3 + Math.floor(random.nextFloat() * (engine.config.vocabSize - 3));
  const times: Record<string, number[]> = {};
  for (let round = -1; round < repetitions; round++) {
    for (const [arm, run] of Object.entries(ARMS)) {
      const prompts = Array.from({ length: numPrompts }, () => Array.from({ length: tokens }, id));
      const took = await measure(engine, session, prompts, run);
      if (round >= 0) (times[arm] ??= []).push(took); // the first round warms up
    }
  }
  const [alone = [], together = []] = Object.values(times);
  const list = (arm: readonly number[]): string =>
    `${median(arm).toFixed(1)} ms (${arm.map((ms) => ms.toFixed(1)).join(", ")})`;
  print(`${numPrompts} prompts of ${tokens} tokens: ${(median(alone) / median(together)).toFixed(2)} x`);
  print(`  one by one ${list(alone)}`);
  print(`  together ${list(together)}`);
}

const { _: words, device, prompts, tokens, repetitions } = parseArgs(Deno.args, {
  string: ["device", "prompts", "tokens", "repetitions"],
  default: { device: "cpu", prompts: "16", tokens: "32,64,128,512", repetitions: "9" },
});
const [model = "models/default"] = words.map(String);
await using engine = await Engine.load(model, { device: device as DeviceChoice });
print(`${model} on ${engine.stats.device}, commit ${await commit()}`);
for (const length of String(tokens).split(",").map(Number)) {
  await study(engine, Number(prompts), length, Number(repetitions));
}
