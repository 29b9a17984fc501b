import { forcedMass, type Order, type Report } from "../report.ts";
import type { Facts } from "../recording.ts";
import { oneLine } from "../../engine/text/escape.ts";
import { formatCount, formatSeconds, plural } from "../../engine/text/format.ts";
import { cutTo, tableLines } from "./table.ts";
import {
  ablationsTable,
  filesTable,
  forPeople,
  missesTable,
  pagesTable,
  percent,
  scorersTable,
  type Table,
} from "./tables.ts";
import { type Highlight, passageLines } from "./passages.ts";
import { stripLines } from "./strip.ts";
import type { Paint } from "./paint.ts";
import { textWidth } from "./width.ts";

/** What the terminal view shows, and how. */
export interface TextStyle {
  by: Order;
  top: number;
  byFile: boolean;
  /** Passages around the top pages replace the strip, the lists and the layers. */
  text: boolean;
  /** Columns of the terminal. */
  width: number;
  paint: Paint;
  highlight: Highlight;
}

const BAR_CELLS = { most: 30, least: 4, beside: 34 } as const;
const BAR_PARTS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"] as const;

/** The whole view for a terminal, or for a file, without color. */
export function inspectText(report: Report, style: TextStyle): string {
  const { recording } = report;
  const cells = forPeople(style.width);
  const sections = [
    header(report, style),
    ...style.text ? [passages(report, style)] : [
      heat(report, style),
      titled(`Pages by ${style.by}`, pagesTable(report, style.by, style.top, cells), style),
      layersSection(report, style),
      report.misses.length > 0
        ? titled(
          "Missed: among the pages with the most attention, but not read",
          missesTable(report, style.top, cells),
          style,
        )
        : ["Missed: none"],
    ],
    style.byFile ? titled("By file", filesTable(report, cells), style) : [],
    recording.comparison ? titled("Scorers on the same steps", scorersTable(report, cells), style) : [],
    recording.ablations ? ablations(report, style) : [],
  ];
  return sections.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n") + "\n";
}

/** The header of every view: labels and texts. */
export function headerTexts(report: Report): [label: string, text: string][] {
  const { facts } = report.recording;
  const { kept, best, recall } = report.whole;
  return [
    ["model", `${facts.model} on ${facts.device}`],
    ["prompt", `${plural(facts.promptTokens, "token")}, ${plural(facts.pages, "page")} of ${facts.pageSize}`],
    ["answer", JSON.stringify(facts.answerText)],
    ["sparse", sparseText(facts)],
    ["shown", shownText(report)],
    [
      "retained",
      `${percent(kept)} of dense attention; as many best pages would retain ${percent(best)}; page recall ${
        percent(recall)
      }`,
    ],
    ["time", `prefill ${formatSeconds(facts.prefillSeconds)}, inspected steps ${formatSeconds(facts.decodeSeconds)}`],
  ];
}

const LABEL_COLUMNS = 10;

/** The texts after their labels, wrapped. */
function header(report: Report, { paint, width }: TextStyle): string[] {
  return headerTexts(report).flatMap(([label, text]) =>
    wrapped(oneLine(text), width - LABEL_COLUMNS).map((line, index) => {
      const name = (index === 0 ? label : "").padEnd(LABEL_COLUMNS);
      return `${paint.dim(name)}${line}`;
    })
  );
}

/** Lines of up to `columns` columns, broken at spaces. Cuts a word that is longer. */
function wrapped(text: string, columns: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (textWidth(line) + 1 + textWidth(word) <= columns) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.map((line) => cutTo(line, columns));
}

function sparseText(facts: Facts): string {
  const { scorer, lambda, budgetPages, pageSize, pages, layers, selectedSteps, steps, pagesRead, pagesDense } = facts;
  const weight = scorer === "unique" || scorer === "diag" ? ` (lambda ${lambda})` : "";
  const budget = `${formatCount(budgetPages * pageSize)} tokens = ${plural(budgetPages, "page")}`;
  const read = `read ${percent(pagesRead / pagesDense)} of KV pages`;
  if (!layers.includes("sparse")) {
    if (pagesDense === 0) return "every layer has a sliding window, so none selects pages";
    const why = pages <= budgetPages ? `every page fits the budget of ${budget}` : "no layer selects";
    return `${why}, ${read}; scores are of ${scorer}${weight}`;
  }
  const always = facts.sinkPages + Math.ceil((facts.promptTokens + 1) / pageSize) - facts.firstRecentPage;
  const choice = budgetPages > always ? "" : ", all taken by the first and latest pages";
  return `${scorer}${weight}, budget ${budget}${choice}, selected in ${selectedSteps} of ${
    plural(steps, "step")
  }, ${read}`;
}

function shownText({ recording: { facts }, selectors: { step, layer, head } }: Report): string {
  return [
    step === undefined ? `all of ${plural(facts.steps, "step")}` : `step ${step + 1} of ${facts.steps}`,
    layer === undefined ? `${plural(facts.layers.length, "layer")}` : `layer ${layer} of ${facts.layers.length}`,
    head === undefined ? `${plural(facts.heads, "KV head")}` : `KV head ${head} of ${facts.heads}`,
  ].join(", ");
}

function heat(report: Report, { by, width, paint }: TextStyle): string[] {
  const { sink, recent } = forcedMass(report);
  const [strip, marks] = stripLines(report, by, width, paint);
  const always = (label: string, { pages, mass }: { pages: number; mass: number }): string =>
    `${label} ${plural(pages, "page")} ${percent(mass)}`;
  return [
    paint.bold(`Context by ${by}`),
    strip,
    ...marks.trim() === "" ? [] : [paint.dim(marks)],
    ...wrapped(
      `Always read, not listed: ${always("sink (s)", sink)}, ${always("recent (r)", recent)} of attention`,
      width,
    ).map(paint.dim),
  ];
}

function passages(report: Report, style: TextStyle): string[] {
  const lines = passageLines(report, style);
  const title = `Passages by ${style.by}`;
  return lines.length === 0 ? [`${style.paint.bold(title)}: none`] : [style.paint.bold(title), "", ...lines];
}

function titled(title: string, { columns, rows }: Table, { width, paint }: TextStyle): string[] {
  if (rows.length === 0) return [`${paint.bold(title)}: none`];
  const [head = "", ...lines] = tableLines(columns, rows, width).map((line) => cutTo(line, width));
  return [...wrapped(title, width).map(paint.bold), paint.dim(head), ...lines];
}

function layersSection(report: Report, { paint, width }: TextStyle): string[] {
  const { facts } = report.recording;
  const digits = String(facts.layers.length - 1).length;
  const cells = Math.max(BAR_CELLS.least, Math.min(BAR_CELLS.most, width - BAR_CELLS.beside - digits));
  const shown = report.selectors.layer;
  const lines = report.layers.map(({ recall, kept }, layer) => {
    const name = `layer ${String(layer).padStart(digits)}`;
    if (facts.layers[layer] === "window") return `${name}  sliding window, never selects`;
    if (facts.layers[layer] === "dense") return `${name}  dense, reads every page`;
    return `${name}  ${paint.color(71, bar(recall, cells))} ${percent(recall).padStart(7)}  retained ${
      percent(kept).padStart(7)
    }`;
  });
  return [paint.bold("Page recall by layer"), ...lines.filter((_, layer) => shown === undefined || shown === layer)];
}

function bar(share: number, cells: number): string {
  const eighths = Math.round((Number.isNaN(share) ? 0 : share) * cells * 8);
  return ("█".repeat(Math.floor(eighths / 8)) + BAR_PARTS[eighths % 8]).padEnd(cells);
}

function ablations(report: Report, style: TextStyle): string[] {
  const [first] = report.recording.ablations ?? [];
  if (!first) return ["Did it matter? No page to mask"];
  return [
    ...titled(
      "Did it matter? The answer's log-probability (nats) with pages masked",
      ablationsTable(report, forPeople(style.width)),
      style,
    ),
    ...[
      `Without a mask: ${first.baseline.toFixed(4)}. The mask applies to the answer, not to the prompt: later text`,
      "may already contain what a page says. Attention is not cause.",
    ].flatMap((text) => wrapped(text, style.width).map(style.paint.dim)),
  ];
}
