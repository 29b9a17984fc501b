import { oneLine } from "../../engine/text/escape.ts";
import { textWidth } from "./width.ts";

/** One column: its title, and how its cells stand. */
export interface TableColumn {
  title: string;
  /** Numbers stand to the right. */
  right?: boolean;
  /** Takes what the line leaves; of the last column only. */
  fills?: boolean;
  /** Left out where the terminal is too narrow for all columns, the lowest number first. */
  spare?: number;
}

const LEAST_FILL = 12;
const GAP = "  ";

/** Lines of a table, title line first, none wider than `width` where columns can be left out and the last one cut. */
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

/** The places of the columns that a width has room for, those that cannot be spared among them. */
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

/** The same as lines with tabs; cells hold neither tabs nor line ends. */
export function tabbedLines(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map(({ title }) => title.replaceAll(" ", "_")), ...rows.map((row) => row.map(oneLine))];
  return lines.map((line) => `${line.join("\t")}\n`).join("");
}

/** The first `columns` columns of a text, with an ellipsis where it is longer. */
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
