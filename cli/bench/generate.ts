import { type ModelChoice, openModel, planModel, type PlannedModel } from "../../bench/bench_model.ts";
import { benchGenerate } from "../../bench/generate.ts";
import { checkGenerateFits } from "../../bench/generate_memory.ts";
import { checkContext, type GeneratePlan, planGenerate } from "../../bench/generate_plan.ts";
import { provenanceOf } from "../../bench/provenance.ts";
import { openDevice } from "../../engine/devices.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { engineError } from "../../engine/memory.ts";
import { adapterNotes, prepareFiles, printRun, progressShower } from "./run.ts";
import { commandLine } from "../system_world.ts";
import { findModel } from "../load.ts";
import type { BenchGenerateFlags } from "../options/bench.ts";
import { Progress } from "../progress.ts";
import type { CommandRun } from "../command_run.ts";

/** `pagesift bench generate`. */
export async function runGenerate(
  flags: BenchGenerateFlags,
  words: readonly string[],
  session: CommandRun,
): Promise<void> {
  const { peers, plot } = prepareFiles(flags, words, "generate");
  const plan = planGenerate({ ...flags, levels: flags.levels === 1 ? 1 : 2 });
  const choice = await chooseModel(flags, session);
  const planned = await planModel(choice, plan.longest);
  checkContext(plan, planned.config);
  checkFits(choice, plan, planned);
  session.output.status(
    choice.shape === undefined ? `Loading ${choice.name}` : `Generating random weights for ${choice.name}`,
  );
  await using model = await openModel(choice, planned, plan.largestBatch).catch((error) => {
    throw engineError(error);
  });
  session.output.notices(model.notices);
  const provenance = await provenanceOf(model.loaded.device.describe(), {
    ...{ command: commandLine(), model: model.name, notes: notesOf(choice, plan) },
    ...model.sha256 !== undefined && { modelSha256: model.sha256 },
  });
  const hooks = { signal: session.interrupt.signal, onProgress: progressShower(session) };
  const cells = benchGenerate(model, plan, hooks);
  await printRun({ subject: "generate", provenance, peers, plot, cells }, flags, session);
}

/** Flags that say which model or shape to plan or measure, and where. */
type ChoiceFlags =
  & Pick<
    BenchGenerateFlags,
    "model" | "adapter" | "revision" | "offline" | "shape" | "weights" | "kvType" | "device" | "threads"
  >
  & Partial<Pick<BenchGenerateFlags, "devices">>;

/** The model of the flags, downloaded if it is a hub name, or their shape. @throws {PagesiftError} of kind "usage" for both */
export async function chooseModel(flags: ChoiceFlags, session: CommandRun): Promise<ModelChoice> {
  const { device, devices = [], threads, weights, kvType } = flags;
  const where = { device, devices, threads, weights, kvType };
  if (flags.shape !== undefined) {
    const other = flags.model !== undefined ? "--model" : flags.adapter !== undefined ? "--adapter" : undefined;
    if (other !== undefined) throw new PagesiftError("usage", `--shape and ${other} exclude each other`);
    return { ...where, shape: flags.shape, name: flags.shape };
  }
  const { folder, name } = await findModel(flags, session, new Progress(session.output));
  return { ...where, folder, name, adapter: flags.adapter };
}

/** Opens the device only to check what fits, before any weight is read. */
function checkFits(choice: ModelChoice, plan: GeneratePlan, planned: PlannedModel): void {
  const { device } = openDevice(choice.device, choice.threads, undefined, choice.devices);
  using _device = device;
  checkGenerateFits(device, plan, planned);
}

function notesOf(choice: ModelChoice, plan: GeneratePlan): string[] {
  const weights = choice.shape === undefined
    ? []
    : ["Random weights, generated on the device: the speed is that of the shape, the text would be noise."];
  return [...weights, ...adapterNotes(choice.adapter), ...plan.notes];
}
