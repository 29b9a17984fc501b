/** A result as text: tables for people, CSV and JSON for programs. */
import { type Column, COLUMNS } from "./columns.ts";
import { FIELDS } from "./fields.ts";
import type { Provenance, Row, Subject } from "./row.ts";

export const FORMATS = ["table", "md", "csv", "json", "jsonl"] as const;
export type Format = (typeof FORMATS)[number];

/** Schema of the JSON output; a change that breaks readers of the previous one increments the number. */
export const SCHEMA = "pagesift.bench/1";

/** The complete result of a run. */
export interface Result {
  subject: Subject;
  provenance: Provenance;
  rows: readonly Row[];
}

/** Text before the first row, in formats that are written row by row. */
export function openingText(format: Format): string {
  return format === "csv" ? `${csvNames().join(",")}\n` : "";
}

/** The rows of a cell in formats that are written row by row, otherwise nothing. */
export function rowsText(format: Format, rows: readonly Row[], provenance: Provenance): string {
  if (format === "csv") return rows.map((row) => `${csvValues(row, provenance).join(",")}\n`).join("");
  if (format !== "jsonl") return "";
  return rows.map((row) => `${JSON.stringify({ ...row, ...essentials(row, provenance) })}\n`).join("");
}

/** Text at the end: the whole result in the other formats. */
export function closingText(format: Format, result: Result): string {
  if (format === "json") return `${JSON.stringify({ schema: SCHEMA, ...result }, null, 2)}\n`;
  if (format === "table") return `${header(result)}\n\n${tables(result, plainTable)}`;
  if (format === "md") {
    return `${header(result)}\n\n    ${result.provenance.command}\n\n${tables(result, markdownTable)}`;
  }
  return "";
}

/** One table per task, because tasks have different columns; a single table without tasks. */
function tables({ rows }: Result, write: (content: Cells) => string): string {
  const above = hoisted(rows);
  return [...Map.groupBy(rows, ({ task }) => task).values()].map((each) => write(cells(each, above))).join("\n");
}

const ESSENTIAL = [
  "version",
  "commit",
  "threads",
  "instruction_set",
  "driver",
  "model_sha256",
  "date",
] as const;

/** The provenance that a row needs on its own. */
function essentials(row: Row, provenance: Provenance): Readonly<Record<string, unknown>> {
  const own = Object.fromEntries(
    ESSENTIAL.flatMap((name) => provenance[name] === undefined ? [] : [[name, provenance[name]]]),
  );
  return row.program === undefined
    ? { program: "pagesift", device: provenance.device, command: provenance.command, ...own }
    : {};
}

function csvNames(): string[] {
  return [...FIELDS.map(({ name }) => name), ...ESSENTIAL];
}

function csvValues(row: Row, provenance: Provenance): string[] {
  const values: Readonly<Record<string, unknown>> = { ...row, ...essentials(row, provenance) };
  return csvNames().map((name) => quoted(values[name]));
}

function quoted(value: unknown): string {
  const text = value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Two or three lines that say where and how the numbers were measured. */
function header({ rows, provenance }: Result): string {
  const { version, commit, device, backend, threads, instruction_set, driver, date, notes } = provenance;
  const kernels = backend === "cpu" ? `${instruction_set}, ${threads} threads` : driver ? `driver ${driver}` : "cuda";
  const model = provenance.model_sha256 === undefined ? "" : `, model ${provenance.model_sha256.slice(0, 12)}`;
  const same = hoisted(rows).map(({ title, show }) => `${title} ${show(rows[0] as Row)}`);
  return [
    `pagesift ${version}, commit ${commit}, ${date}, ${device} (${kernels})${model}`,
    ...same.length > 0 ? [`${same.join(", ")}`] : [],
    ...notes,
  ].join("\n");
}

/** Settings that all rows share. */
function hoisted(rows: readonly Row[]): Column[] {
  return COLUMNS.filter(({ setting, show }) => {
    const values = new Set(rows.filter(({ program }) => program === undefined).map(show));
    return setting && values.size === 1 && !values.has(undefined);
  });
}

interface Cells {
  titles: string[];
  lines: string[][];
}

/** Titles and cells of the columns that are not empty. */
function cells(rows: readonly Row[], above: readonly Column[]): Cells {
  const shown = COLUMNS.filter((column) =>
    !above.includes(column) && rows.some((row) => column.show(row) !== undefined)
  );
  return {
    titles: shown.map(({ title }) => title),
    lines: rows.map((row) => shown.map(({ show }) => show(row) ?? "")),
  };
}

function widths({ titles, lines }: Cells): number[] {
  return titles.map((title, at) => Math.max(title.length, ...lines.map((line) => line[at]?.length ?? 0)));
}

/** Aligns columns of numbers and their titles to the right, columns of words to the left. */
function aligned({ titles, lines }: Cells): (values: readonly string[]) => string[] {
  const right = titles.map((_, at) => lines.every((line) => /^$|^[\d+-]/.test(line[at] ?? "")));
  const wide = widths({ titles, lines });
  return (values) => values.map((value, at) => right[at] ? value.padStart(wide[at] ?? 0) : value.padEnd(wide[at] ?? 0));
}

function plainTable(content: Cells): string {
  const place = aligned(content);
  const line = (values: readonly string[]): string => place(values).join("  ").trimEnd();
  const rule = widths(content).map((width) => "-".repeat(width)).join("  ");
  return [line(content.titles), rule, ...content.lines.map(line), ""].join("\n");
}

function markdownTable(content: Cells): string {
  const place = aligned(content);
  const line = (values: readonly string[]): string => `| ${place(values).join(" | ")} |`;
  const rule = `|${widths(content).map((width) => "-".repeat(width + 2)).join("|")}|`;
  return [line(content.titles), rule, ...content.lines.map(line), ""].join("\n");
}
