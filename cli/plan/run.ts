import { planModel } from "../../bench/bench_model.ts";
import { measureBandwidth } from "../../bench/peak.ts";
import { planReport, predictSpeed } from "../../bench/plan_report.ts";
import { openDevice } from "../../engine/devices.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { withModelDefaults } from "../../engine/folder/sparsity_file.ts";
import { engineError } from "../../engine/memory.ts";
import { resolvePolicy } from "../../engine/pages/page_policy.ts";
import { MAX_BATCH } from "../../engine/request.ts";
import { chooseModel } from "../bench/generate.ts";
import type { CommandRun } from "../command_run.ts";
import { sparseOf } from "../options/engine_options.ts";
import type { PlanFlags } from "../options/plan.ts";
import { planText } from "./plan_text.ts";

/** The context of a shape, which no file limits, in tokens. */
const SHAPE_CONTEXT = 2 ** 20;
const PROBE_MS = 2000;

/** `pagesift plan`. */
export async function runPlan(flags: PlanFlags, words: readonly string[], session: CommandRun): Promise<void> {
  if (words.length > 0) throw new PagesiftError("usage", `plan takes only options, found "${words[0]}"`);
  const sparse = sparseOf(flags);
  const choice = await chooseModel(flags, session);
  const planned = await planModel(choice, SHAPE_CONTEXT);
  const { device, notices } = openDevice(flags.device, flags.threads, undefined, flags.devices);
  using _device = device;
  session.output.notices([...planned.plan.notices, ...notices]);
  const policy = resolvePolicy(
    withModelDefaults(planned.sparsity?.defaults ?? {}, sparse),
    planned.config.slidingWindows,
    device.backend === "cuda",
  );
  const contextTokens = flags.ctxSize || planned.config.maxContext;
  const run = { ...planned, policy, contextTokens, numSequences: flags.parallel };
  const report = onDevice(() => planReport(device, choice.name, run, MAX_BATCH));
  if (flags.measure) {
    session.output.status("Measuring the memory bandwidth");
    const bytesPerSecond = onDevice(() => session.interrupt.blocking(() => measureBandwidth(device, PROBE_MS)));
    report.speed = predictSpeed(device, run, bytesPerSecond);
  }
  session.output.result(flags.output === "json" ? JSON.stringify(report, null, 2) + "\n" : planText(report));
}

function onDevice<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw engineError(error);
  }
}
