import { benchAttention, fitCases } from "../../bench/attention.ts";
import { planAttention } from "../../bench/attention_plan.ts";
import { provenanceOf } from "../../bench/provenance.ts";
import { openDevice } from "../../engine/devices.ts";
import { prepareFiles, printRun, progressShower } from "./run.ts";
import { commandLine } from "../system_world.ts";
import type { BenchAttentionFlags } from "../options/bench.ts";
import type { CommandRun } from "../command_run.ts";

const NOTES = [
  'Synthetic keys whose means drift from page to page, queries near a key. Layers and queries rotate: "rotated MB" is the data read ' +
  "before the same bytes are read again.",
];

/** `pagesift bench attention`. */
export async function runAttention(
  flags: BenchAttentionFlags,
  words: readonly string[],
  session: CommandRun,
): Promise<void> {
  const { peers, plot } = prepareFiles(flags, words, "attention");
  const plan = planAttention({ ...flags, levels: flags.levels === 1 ? 1 : 2 });
  const { device, notices } = openDevice(flags.device, flags.threads);
  using _device = device;
  session.output.notices(notices);
  fitCases(device, plan);
  const provenance = await provenanceOf(device.describe(), { command: commandLine(), notes: NOTES });
  const hooks = { signal: session.interrupt.signal, onProgress: progressShower(session) };
  const cells = benchAttention(device, plan, hooks);
  await printRun({ subject: "attention", provenance, peers, plot, cells }, flags, session);
}
