import { oneLine } from "./escape.ts";
import { textWidth } from "./text_width.ts";

/** One column: its title, and how its cells stand. */
export interface TableColumn {
  title: string;
  /** Numbers stand to the right. */
  right?: boolean;
  /** Takes what the line leaves; of the last column only. */
  fills?: boolean;
}

const LEAST_FILL = 12;

/** Lines of a table, title line first, none wider than `width` where the last column can be cut. */
export function tableLines(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
  width: number,
): string[] {
  const cells = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, at) => Math.max(...cells.map((row) => textWidth(row[at] ?? ""))));
  return cells.map((row) => {
    let line = "";
    columns.forEach(({ right, fills }, at) => {
      if (at > 0) line += "  ";
      const text = row[at] ?? "";
      if (fills) line += cutTo(text, Math.max(LEAST_FILL, width - textWidth(line)));
      else line += pad(text, widths[at]!, right ?? false);
    });
    return line.trimEnd();
  });
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
