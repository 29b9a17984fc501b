/**
 * Prefill and decode speed of a model at given depths, sparse against dense. The arms alternate in one run over the same prefilled
 * text; medians. The native counters must show that the sparse arm selected at every step, and the dense arm never.
 *
 *     deno run -A scripts/bench_generate.ts TEXT [--model DIR] [--depths 8192,16384] [--tokens 64] [--repeats 5]
 *       [--threads N] [--device auto|cpu|cuda]
 */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl } from "@std/path";
import { type DeviceChoice, deviceLabel } from "../engine/devices.ts";
import { Engine } from "../engine/engine.ts";
import type { PagePolicy } from "../engine/page_policy.ts";
import { print } from "./support/lines.ts";
import { commit, DecodeSession, median, proseIds } from "./support/session.ts";

interface Arm {
  name: string;
  policy: PagePolicy;
  selects: boolean;
  /** Seconds a token, one entry a repeat. */
  seconds: number[];
}

/** Decodes `tokens` tokens from `depth` on, greedily. Returns seconds a token. */
function timeDecode(session: DecodeSession, arm: Arm, depth: number, tokens: number, first: number): number {
  session.rewind(depth);
  let id = session.step(first, arm.policy); // warms up
  const before = session.counters().rowsSelected;
  const started = performance.now();
  for (let count = 0; count < tokens; count++) id = session.step(id, arm.policy);
  const seconds = (performance.now() - started) / 1000 / tokens;
  const selected = session.counters().rowsSelected > before;
  if (selected !== arm.selects) {
    throw new Error(`The ${arm.name} arm ${selected ? "selected pages" : "never selected"}`);
  }
  return seconds;
}

async function benchDepth(engine: Engine, text: string, depth: number, tokens: number, repeats: number): Promise<void> {
  using session = new DecodeSession(engine, depth + tokens + 1);
  const ids = proseIds(engine, text, depth + 1);
  const arms: Arm[] = [
    { name: "dense", policy: session.policy({ mode: "off" }), selects: false, seconds: [] },
    { name: "sparse", policy: session.policy({ mode: "on" }), selects: true, seconds: [] },
  ];
  const prefillSeconds = await session.prefill(ids.slice(0, depth), session.policy({}));
  for (let round = 0; round < repeats; round++) {
    for (const arm of arms) arm.seconds.push(timeDecode(session, arm, depth, tokens, ids[depth] ?? 0));
  }
  const [dense = NaN, sparse = NaN] = arms.map((arm) => 1 / median(arm.seconds));
  const best = arms.map((arm) => 1 / Math.min(...arm.seconds));
  print(
    `| ${depth} | ${prefillSeconds.toFixed(1)} | ${(depth / prefillSeconds).toFixed(0)} | ${dense.toFixed(0)} (best ${
      best[0]?.toFixed(0)
    }) | ` +
      `${sparse.toFixed(0)} (best ${best[1]?.toFixed(0)}) | ${(sparse / dense).toFixed(2)} |`,
  );
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["model", "depths", "tokens", "repeats", "threads", "device"] });
  const text = String(flags._[0] ?? fromFileUrl(new URL("../examples/war_of_the_worlds.txt", import.meta.url)));
  const model = String(flags["model"] ?? fromFileUrl(new URL("../models/default", import.meta.url)));
  const threads = flags["threads"] ? { threads: Number(flags["threads"]) } : {};
  const device = (flags["device"] ?? "auto") as DeviceChoice;
  await using engine = await Engine.load(model, { device, ...threads });
  const depths = String(flags["depths"] ?? "4096").split(",").map(Number);
  const [tokens, repeats] = [Number(flags["tokens"] ?? 64), Number(flags["repeats"] ?? 5)];
  print(
    `commit ${Deno.env.get("PAGESIFT_COMMIT") ?? await commit()}, ${
      deviceLabel(engine.device)
    }, page 8, budget 512, median of ${repeats} x ${tokens} tokens, arms alternate\n`,
  );
  print(
    "| depth (tokens) | prefill s | prefill tokens/s | dense tokens/s | sparse tokens/s | sparse / dense |\n|---|---|---|---|---|---|",
  );
  for (const depth of depths) await benchDepth(engine, text, depth, tokens, repeats);
}

if (import.meta.main) await main();
