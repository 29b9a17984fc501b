/**
 * Shows what loading a model costs in main memory, phase by phase (Linux).
 *
 *     deno run -A scripts/studies/profile_loading.ts MODEL [--weights FORMAT] [--device cpu|cuda] [--threads N]
 *
 * `resident` is what the process has in memory after the phase, `largest` the most it had so far, and `heap` what V8 has in use. The last
 * line gives the largest amount beyond the weights, in all and relative to the process before the model was opened.
 */
import { parseArgs } from "@std/cli/parse-args";
import { openDevice } from "../../engine/devices.ts";
import type { DeviceChoice } from "../../engine/devices.ts";
import type { WeightFormat } from "../../engine/folder/weight_formats.ts";
import { LoadedModel } from "../../engine/loaded_model.ts";
import { kvFormat } from "../../engine/pages/kv_type.ts";
import { openModelSource } from "../../engine/source/model_source.ts";
import { planSource } from "../../engine/source/plan_source.ts";
import { Weights } from "../../engine/weights.ts";
import { print } from "../output.ts";
import { commit } from "./measure.ts";

const MIB = 1 << 20;

/** Bytes of a field of `/proc/self/status`. */
function memory(field: "VmRSS" | "VmHWM"): number {
  const [, kib] = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(Deno.readTextFileSync("/proc/self/status")) ?? [];
  return Number(kib) * 1024;
}

const mib = (bytes: number): string => (bytes / MIB).toFixed(0).padStart(6);

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["weights", "device", "threads"] });
  const path = String(flags._[0]);
  let since = performance.now();
  const report = (phase: string): void => {
    const seconds = ((performance.now() - since) / 1000).toFixed(2).padStart(7);
    const { heapUsed } = Deno.memoryUsage();
    print(`${phase.padEnd(10)} ${seconds} s  ${mib(memory("VmRSS"))} ${mib(memory("VmHWM"))} ${mib(heapUsed)}`);
    since = performance.now();
  };
  print(`commit ${await commit()}`);
  print(`phase         seconds   resident largest heap (MiB)`);
  const before = memory("VmHWM");
  report("start");
  const source = await openModelSource(path);
  report("header");
  const format = flags.weights as WeightFormat | undefined;
  const plan = await planSource(source, source.config, { format });
  report("plan");
  await source.tokenizer({ vocabSize: source.config.vocabSize });
  report("tokenizer");
  const threads = flags.threads === undefined ? undefined : Number(flags.threads);
  const { device } = openDevice((flags.device ?? "cpu") as DeviceChoice, threads);
  report("device");
  const weights = await Weights.load(device, plan);
  report("weights");
  await using _loaded = LoadedModel.create(device, source.config, weights, kvFormat("auto", plan.dtype));
  report("model");
  const beyond = memory("VmHWM") - weights.bytes;
  const share = (bytes: number): string => `${mib(bytes).trim()} MiB (${(100 * bytes / weights.bytes).toFixed(1)} %)`;
  print(
    `weights ${mib(weights.bytes).trim()} MiB; largest beyond them ${share(beyond)}, ${
      share(beyond - before)
    } after the start`,
  );
}

if (import.meta.main) await main();
