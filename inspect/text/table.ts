import { oneLine } from "../../engine/text/escape.ts";
import { textWidth } from "./width.ts";

/** The title and layout of one column. */
export interface TableColumn {
  title: string;
  /** Right-aligned, for numbers. */
  right?: boolean;
  /** Takes the rest of the line; only for the last column. */
  fills?: boolean;
  /** Columns that a narrow terminal leaves out, the lowest number first. */
  spare?: number;
}

const LEAST_FILL = 12;
const GAP = "  ";

/** Lines of a table, titles first. Leaves out columns and cuts the last one to stay within `width`. */
export function tableLines(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
  width: number,
): string[] {
  const cells = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, at) => Math.max(...cells.map((row) => textWidth(row[at] ?? ""))));
  const shown = fittingColumns(columns, widths, width);
  return cells.map((row) => {
    let line = "";
    columns.forEach(({ right, fills }, at) => {
      if (!shown.has(at)) return;
      if (line !== "") line += GAP;
      const text = row[at] ?? "";
      if (fills) line += cutTo(text, Math.max(LEAST_FILL, width - textWidth(line)));
      else line += pad(text, widths[at]!, right ?? false);
    });
    return line.trimEnd();
  });
}

/** The indexes of the columns that fit a width; required columns are always among them. */
function fittingColumns(columns: readonly TableColumn[], widths: readonly number[], width: number): Set<number> {
  const shown = new Set(columns.keys());
  const least = (at: number): number => columns[at]!.fills ? Math.min(LEAST_FILL, widths[at]!) : widths[at]!;
  const need = (): number => [...shown].reduce((sum, at) => sum + GAP.length + least(at), -GAP.length);
  const order = [...shown].filter((at) => columns[at]!.spare !== undefined)
    .sort((a, b) => columns[a]!.spare! - columns[b]!.spare!);
  for (const at of order) {
    if (need() > width) shown.delete(at);
  }
  return shown;
}

/** The same as lines with tabs. Cells contain neither tabs nor line breaks. */
export function tabbedLines(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title.replaceAll(" ", "_")), ...rows.map((row) => row.map(oneLine))];
  return lines.map((line) => `${line.join("\t")}\n`).join("");
}

/** The first `columns` columns of a text, with an ellipsis if it is longer. */
export function cutTo(text: string, columns: number): string {
  if (textWidth(text) <= columns) return text;
  let [kept, used] = ["", 0];
  for (const character of text) {
    const wide = textWidth(character);
    if (used + wide > columns - 1) break;
    kept += character;
    used += wide;
  }
  return `${kept}…`;
}

function pad(text: string, width: number, right: boolean): string {
  const space = " ".repeat(Math.max(0, width - textWidth(text)));
  return right ? space + text : text + space;
}
