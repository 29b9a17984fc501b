/**
 * Shows what loading a model costs in main memory, phase by phase (Linux).
 *
 *     deno run -A scripts/studies/profile_loading.ts MODEL [--weights FORMAT] [--device cpu|cuda] [--threads N]
 *
 * `resident` is what the process has in memory after the phase, `largest` the most it had so far, and `heap` what V8 has in use. The last
 * line gives the largest amount beyond the weights, in all and relative to the process before the model was opened.
 */
import { parseArgs } from "@std/cli/parse-args";
import { type DeviceChoice, openDevice } from "../../engine/devices.ts";
import type { ModelConfig } from "../../engine/folder/config.ts";
import type { WeightFormat } from "../../engine/folder/weight_formats.ts";
import type { WeightPlan } from "../../engine/folder/weight_plan.ts";
import { LoadedModel } from "../../engine/loaded_model.ts";
import { kvFormat } from "../../engine/pages/kv_type.ts";
import { openModelSource } from "../../engine/source/model_source.ts";
import { planSource } from "../../engine/source/plan_source.ts";
import type { Tokenizer } from "../../engine/text/tokenizer.ts";
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

/** Called after each phase. */
type Report = (phase: string) => void;

/** What {@link Engine.load} has before the weights; the source is not kept. */
async function read(
  path: string,
  format: WeightFormat | undefined,
  report: Report,
): Promise<[ModelConfig, WeightPlan, Tokenizer]> {
  const source = await openModelSource(path);
  report("header");
  const plan = await planSource(source, source.config, { format });
  report("plan");
  const tokenizer = await source.tokenizer({ vocabSize: source.config.vocabSize });
  report("tokenizer");
  return [source.config, plan, tokenizer];
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, { string: ["weights", "device", "threads"] });
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
  const [config, plan, tokenizer] = await read(String(flags._[0]), flags.weights as WeightFormat | undefined, report);
  const threads = flags.threads === undefined ? undefined : Number(flags.threads);
  const { device } = openDevice((flags.device ?? "cpu") as DeviceChoice, threads);
  report("device");
  const weights = await Weights.load(device, plan);
  report("weights");
  await using _loaded = LoadedModel.create(device, config, weights, kvFormat("auto", plan.dtype));
  report("model");
  tokenizer.encode("A text");
  const beyond = memory("VmHWM") - weights.bytes;
  const share = (bytes: number): string => `${mib(bytes).trim()} MiB (${(100 * bytes / weights.bytes).toFixed(1)} %)`;
  const after = share(beyond - before);
  print(`weights ${mib(weights.bytes).trim()} MiB; largest beyond them ${share(beyond)}, ${after} after the start`);
}

if (import.meta.main) await main();
