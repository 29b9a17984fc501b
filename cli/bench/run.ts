import { basename } from "@std/path";
import { parsePeers, type PeerRow, PeerTable } from "../../bench/peers.ts";
import { type Plot, renderPlot } from "../../bench/plot.ts";
import { qualityPlot } from "../../bench/quality_plot.ts";
import type { Progress, Provenance, Row, Subject } from "../../bench/row.ts";
import { speedPlot } from "../../bench/speed_plot.ts";
import { closingText, openingText, rowsText } from "../../bench/writers.ts";
import { PagesiftError, reasonOf } from "../../engine/errors.ts";
import { engineError } from "../../engine/memory.ts";
import { Aborted } from "../../engine/event_loop.ts";
import type { ResultFlags } from "../options/bench.ts";
import { formatCount, plural } from "../../engine/text/format.ts";
import type { CommandRun } from "../command_run.ts";
import { type TargetFile, targetFile, writeTarget } from "../write_file.ts";

/** Contents of the files that the flags name, read before the first measurement. */
export interface BenchFiles {
  peers: readonly PeerRow[];
  /** Where the plot goes. */
  plot: TargetFile | undefined;
}

/** One subject, ready to be measured. */
export interface BenchRun {
  subject: Subject;
  provenance: Provenance;
  peers: readonly PeerRow[];
  plot: TargetFile | undefined;
  cells: AsyncIterable<readonly Row[]>;
}

/** Reads peers and makes sure that the plot can be written. @throws {PagesiftError} of kind "usage" */
export function prepareFiles(
  flags: ResultFlags,
  words: readonly string[],
  subject: Subject,
): BenchFiles {
  if (words.length > 0) throw new PagesiftError("usage", `bench ${subject} takes only options, found "${words[0]}"`);
  const plot = flags.plot === undefined ? undefined : targetFile("--plot", flags.plot);
  return { plot, peers: flags.peers.flatMap((file) => parsePeers(file, readText(file), subject)) };
}

function readText(file: string): string {
  try {
    return Deno.readTextFileSync(file);
  } catch (error) {
    throw new PagesiftError("usage", `--peers "${file}" cannot be read: ${reasonOf(error)}`);
  }
}

/** The line of a run's notes that names the adapter, if there is one. */
export function adapterNotes(adapter: string | undefined): string[] {
  return adapter === undefined ? [] : [`With the adapter "${basename(adapter)}".`];
}

/** Shows the progress of a run. */
export function progressShower({ output }: CommandRun): (progress: Progress) => void {
  return ({ done, total, label }) => {
    const text = `Measuring ${done + 1} of ${total}: ${label}`;
    output.stage(text);
    output.status(text);
  };
}

/** Measures, and writes rows as they arrive or at the end, depending on the format; an interrupt keeps the rows so far. */
export async function printRun(run: BenchRun, flags: Pick<ResultFlags, "output">, session: CommandRun): Promise<void> {
  const { output } = session;
  const peers = new PeerTable(run.peers, run.provenance.device);
  warnOfDevices(peers, run.provenance, session);
  output.result(openingText(flags.output));
  const rows: Row[] = [];
  try {
    for await (const cell of run.cells) {
      const all = [...cell, ...peers.besides(cell)];
      rows.push(...all);
      output.result(rowsText(flags.output, all, run.provenance));
    }
  } catch (error) {
    if (!(error instanceof Aborted)) throw engineError(error);
  }
  if (rows.length === 0) return;
  output.result(closingText(flags.output, { subject: run.subject, provenance: run.provenance, rows }));
  if (run.plot !== undefined) writeTarget(run.plot, renderPlot(plotOf(run, rows)));
  warnOfAlarms(rows, session);
  if (!session.interrupt.signal.aborted) warnOfUnmatched(peers, session);
}

function plotOf({ subject, provenance }: BenchRun, rows: readonly Row[]): Plot {
  return subject === "quality" ? qualityPlot(rows, provenance) : speedPlot(rows, provenance);
}

/** Warns of surprising rows: a mistake, luck, or a model trained for sparse attention. */
function warnOfAlarms(rows: readonly Row[], { output }: CommandRun): void {
  for (const { task, context_tokens: length, scorer, arm, budget_tokens: budget, alarm } of rows) {
    if (alarm === undefined) continue;
    output.warn(
      `${task} at ${length} tokens: ${scorer ?? arm}, budget ${budget}, beats dense (${alarm}); ` +
        "do not trust the row unless the model was trained for sparse attention",
    );
  }
}

function warnOfDevices(peers: PeerTable, { device }: Provenance, { output }: CommandRun): void {
  const [other] = peers.otherDevices;
  if (other !== undefined) output.warn(`Peer rows were measured on "${other}", this run on "${device}"`);
}

function warnOfUnmatched({ unmatched }: PeerTable, { output }: CommandRun): void {
  const [first] = unmatched;
  if (first === undefined) return;
  const places = unmatched.length === 1 ? first.place : `${first.place} and ${formatCount(unmatched.length - 1)} more`;
  const verb = unmatched.length === 1 ? "matches" : "match";
  output.warn(`${plural(unmatched.length, "peer row")} ${verb} no settings of this run: ${places}`);
}
