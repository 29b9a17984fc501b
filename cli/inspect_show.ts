import type { Report } from "../inspect/report.ts";
import { inspectText } from "./inspect_text.ts";
import { tabbedLines } from "./inspect_table.ts";
import {
  ablationsTable,
  filesTable,
  FOR_PROGRAMS,
  missesTable,
  pagesTable,
  scorersTable,
  type Table,
} from "./inspect_tables.ts";
import type { InspectFlags } from "./options_inspect.ts";
import { paintFor } from "./paint.ts";
import type { Session } from "./session.ts";

/** Columns of a view that goes to a file or a pipe. */
const PLAIN_COLUMNS = 120;

/** Prints a report in the form that the flags ask for. */
export function showReport(report: Report, answer: string, flags: InspectFlags, { output, world }: Session): void {
  if (flags.tsv) {
    const { columns, rows } = askedTable(report, flags);
    return output.result(tabbedLines(columns, rows));
  }
  const width = world.stdout.isTerminal() ? world.columns() : PLAIN_COLUMNS;
  output.result(inspectText(report, answer, { ...flags, width, paint: paintFor(world, flags.color) }));
}

/** The one table that `--tsv` prints: of what was asked for beside the pages, or the pages. */
function askedTable(report: Report, { ablate, compare, byFile, by, top }: InspectFlags): Table {
  if (ablate) return ablationsTable(report, FOR_PROGRAMS);
  if (compare !== undefined) return scorersTable(report, FOR_PROGRAMS);
  if (byFile) return filesTable(report, FOR_PROGRAMS);
  return by === "missed" ? missesTable(report, top, FOR_PROGRAMS) : pagesTable(report, by, top, FOR_PROGRAMS);
}
