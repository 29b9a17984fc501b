import { resolve } from "@std/path";
import { PagesiftError } from "../../engine/errors.ts";
import { renderHtml } from "../../inspect/html/html.ts";
import { toJson } from "../../inspect/json.ts";
import { makeReport, type Report } from "../../inspect/report.ts";
import type { Recording } from "../../inspect/recording.ts";
import { writeTrace } from "../../inspect/trace.ts";
import { selectorsOf } from "./flags.ts";
import { headerTexts, inspectText } from "../../inspect/text/text.ts";
import { tabbedLines } from "../../inspect/text/table.ts";
import {
  ablationsTable,
  filesTable,
  FOR_PROGRAMS,
  forPeople,
  missesTable,
  pagesTable,
  scorersTable,
  type Table,
} from "../../inspect/text/tables.ts";
import type { InspectFlags } from "../options/inspect.ts";
import { paintFor, takesColor } from "../paint.ts";
import type { CommandRun } from "../command_run.ts";
import { type TargetFile, targetFile, writeTarget } from "../write_file.ts";

/** Columns of a view in a file or pipe. */
const PLAIN_COLUMNS = 120;

/** Files that a run writes in addition to its view. */
export interface TargetFiles {
  html: TargetFile | undefined;
  trace: TargetFile | undefined;
}

/** Opens the files of `--html` and `--trace` before the run. @throws {PagesiftError} of kind "usage" */
export function targetFiles({ html, trace, files, replay }: InspectFlags): TargetFiles {
  const others = [...files, ...replay === undefined ? [] : [replay]].map(realPath);
  const open = (flag: string, path: string | undefined): TargetFile | undefined => {
    if (path === undefined) return undefined;
    const target = targetFile(flag, path);
    if (!others.includes(realPath(target.path))) {
      others.push(realPath(target.path));
      return target;
    }
    throw new PagesiftError(
      "usage",
      `${flag} "${path}" would overwrite another file of this run; name a new one`,
    );
  };
  return { html: open("--html", html), trace: open("--trace", trace) };
}

/** The real path of a file, or the absolute path of one that does not exist. */
function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return resolve(path); // a later read or write reports the error
  }
}

/** The report of a recording under the selectors of the flags. @throws {PagesiftError} of kind "usage" */
export function reportOf(recording: Recording, flags: InspectFlags): Report {
  const { layers, heads, steps } = recording.facts;
  return makeReport(recording, selectorsOf(flags, { layers: layers.length, heads, steps }));
}

/** Writes the files, then prints the requested view. */
export async function showReport(
  report: Report,
  flags: InspectFlags,
  files: TargetFiles,
  session: CommandRun,
): Promise<void> {
  if (files.trace) writeTarget(files.trace, await writeTrace(report.recording));
  if (files.html) writeTarget(files.html, await htmlOf(report, flags));
  const { output, world } = session;
  if (flags.json) return output.result(JSON.stringify(toJson(report, flags)) + "\n");
  if (flags.tsv) {
    const { columns, rows } = askedTable(report, flags);
    return output.result(tabbedLines(columns, rows));
  }
  const width = world.stdout.isTerminal() ? world.columns() : PLAIN_COLUMNS;
  const highlight = takesColor(world, world.stdout, flags.color) ? reversed : "quotes";
  output.result(inspectText(report, { ...flags, width, paint: paintFor(world, world.stdout, flags.color), highlight }));
}

function reversed(text: string): string {
  return `\x1b[7m${text}\x1b[0m`;
}

function htmlOf(report: Report, { by }: InspectFlags): Promise<string> {
  const { comparison, ablations } = report.recording;
  const cells = forPeople(PLAIN_COLUMNS);
  const all = makeReport(report.recording, {}); // the page has selectors of its own
  const tables: [caption: string, table: Table][] = [
    ["By file", filesTable(all, cells)],
    ...comparison ? [["Scorers on the same steps", scorersTable(all, cells)] as [string, Table]] : [],
    ...ablations
      ? [["Log-probability of the answer with pages masked", ablationsTable(report, cells)] as [string, Table]]
      : [],
  ];
  return renderHtml(report, {
    by,
    facts: [...headerTexts(all).filter(([label]) => label !== "shown"), ["command", report.recording.facts.command]],
    tables: tables.map(([caption, { columns, rows }]) => ({
      caption,
      titles: columns.map(({ title }) => title),
      rows,
    })),
  });
}

/** The one table that `--tsv` prints: ablations, scorers or files if requested, else pages. */
function askedTable(report: Report, { ablate, compare, byFile, by, top }: InspectFlags): Table {
  if (ablate) return ablationsTable(report, FOR_PROGRAMS);
  if (compare !== undefined) return scorersTable(report, FOR_PROGRAMS);
  if (byFile) return filesTable(report, FOR_PROGRAMS);
  return by === "missed" ? missesTable(report, top, FOR_PROGRAMS) : pagesTable(report, by, top, FOR_PROGRAMS);
}
