/** The tables of `inspect-pages`, for people and for programs. */
import { sumByFile } from "../by_file.ts";
import { compareScorers } from "../compared.ts";
import type { Place } from "../prompt_text.ts";
import { type Order, rankPages, type Report } from "../report.ts";
import { oneLine } from "../../engine/text/escape.ts";
import type { TableColumn } from "./table.ts";
import { textWidth } from "./width.ts";

export interface Table {
  columns: TableColumn[];
  rows: string[][];
}

const SNIPPET_CHARACTERS = 400;

/** Formats cells for people or for programs. */
export interface CellStyle {
  share(share: number): string;
  count(count: number, of: number): string;
  place(places: readonly Place[]): string;
}

/** A share as a percentage, `-` if undefined. */
export function percent(share: number): string {
  if (Number.isNaN(share)) return "-";
  const value = 100 * share;
  return value > 0 && value < 0.01 ? "<0.01 %" : `${value.toFixed(value < 10 ? 2 : 1)} %`;
}

/** Columns of a place: as many as a wide terminal has left next to the text of a page. */
const PLACE_COLUMNS = { least: 12, most: 36, beside: 88 } as const;

/** Cells for a terminal of this width. */
export function forPeople(width: number): CellStyle {
  const { least, most, beside } = PLACE_COLUMNS;
  const columns = Math.max(least, Math.min(most, width - beside));
  return {
    share: percent,
    count: (count, of) => `${count}/${of}`,
    place: (places) => {
      const [first = ""] = places.map((place) => placeText([place]));
      const more = places.length > 1 ? ` +${places.length - 1}` : "";
      return shortened(first, columns) + more;
    },
  };
}

/** A place in few columns: drops its folders first, then its beginning. */
function shortened(place: string, columns: number): string {
  if (textWidth(place) <= columns) return place;
  const name = `…/${place.slice(place.lastIndexOf("/") + 1)}`;
  if (place.includes("/") && textWidth(name) <= columns) return name;
  const characters = [...place];
  while (textWidth(characters.join("")) >= columns) characters.shift();
  return `…${characters.join("")}`;
}

/** Shares of 1 with seven digits, and all places of a page. */
export const FOR_PROGRAMS: CellStyle = {
  share: (share) => Number.isNaN(share) ? "" : String(Number(share.toPrecision(7))),
  count: (count) => String(count),
  place: placeText,
};

/** `a.txt:3-5`, followed by the other sources of the page. */
export function placeText(places: readonly Place[]): string {
  return places.map(({ source, firstLine, lastLine }) => {
    if (firstLine === 0) return source;
    return `${source}:${firstLine}${lastLine === firstLine ? "" : `-${lastLine}`}`;
  }).join(" ");
}

export function snippet(report: Report, page: number): string {
  return oneLine(report.texts.text(page).slice(0, SNIPPET_CHARACTERS));
}

function tokensText({ texts }: Report, page: number): string {
  const { first, last } = texts.tokens(page);
  return `${first}-${last}`;
}

export function pagesTable(report: Report, by: Order, top: number, style: CellStyle): Table {
  const { pages, rows, texts, recording: { promptReads } } = report;
  return {
    columns: [
      { title: "rank", right: true, spare: 3 },
      { title: "page", right: true },
      { title: "tokens", right: true, spare: 2 },
      { title: "where" },
      { title: "score", right: true, spare: 4 },
      { title: "selected", right: true, spare: 5 },
      { title: "mass", right: true },
      { title: "missed", right: true, spare: 1 },
      ...promptReads ? [{ title: "prompt", right: true }] : [],
      { title: "text", fills: true },
    ],
    rows: rankPages(report, by, top).map((page, index) => [
      String(index + 1),
      String(page),
      tokensText(report, page),
      oneLine(style.place(texts.places(page))),
      pages.score[page]!.toFixed(2),
      style.count(pages.selected[page]!, rows),
      style.share(pages.mass[page]!),
      style.share(pages.lost[page]!),
      ...promptReads ? [String(promptReads[page] ?? 0)] : [],
      snippet(report, page),
    ]),
  };
}

export function missesTable(report: Report, top: number, style: CellStyle): Table {
  const { misses, texts, recording: { facts }, selectors } = report;
  const steps = selectors.step === undefined ? facts.steps : 1;
  return {
    columns: [
      { title: "layer", right: true },
      { title: "head", right: true },
      { title: "page", right: true, spare: 3 },
      { title: "tokens", right: true, spare: 1 },
      { title: "where", spare: 4 },
      { title: "mass lost", right: true },
      { title: "steps", right: true, spare: 2 },
      { title: "text", fills: true },
    ],
    rows: misses.slice(0, top).map((miss) => [
      String(miss.layer),
      String(miss.head),
      String(miss.page),
      tokensText(report, miss.page),
      oneLine(style.place(texts.places(miss.page))),
      style.share(miss.lost),
      style.count(miss.steps, steps),
      snippet(report, miss.page),
    ]),
  };
}

export function filesTable(report: Report, style: CellStyle): Table {
  return {
    columns: [
      { title: "source" },
      { title: "pages", right: true, spare: 3 },
      { title: "mass", right: true },
      { title: "without always read", right: true, spare: 2 },
      { title: "of pages read", right: true, spare: 4 },
      { title: "missed", right: true, spare: 1 },
    ],
    rows: sumByFile(report).map((file) => [
      oneLine(file.source),
      file.pages.toFixed(1),
      style.share(file.mass),
      style.share(file.freeMass),
      style.share(file.selectedShare),
      style.share(file.lost),
    ]),
  };
}

export function scorersTable(report: Report, style: CellStyle): Table {
  return {
    columns: [
      { title: "scorer" },
      { title: "recall", right: true },
      { title: "mass kept", right: true },
      { title: "shared with run", right: true, spare: 1 },
    ],
    rows: compareScorers(report).map(({ scorer, recall, kept, overlap }) => [
      scorer ?? `this run (${report.recording.facts.scorer})`,
      style.share(recall),
      style.share(kept),
      style.share(overlap),
    ]),
  };
}

export function ablationsTable(report: Report, style: CellStyle): Table {
  return {
    columns: [
      { title: "masked" },
      { title: "pages", right: true, spare: 1 },
      { title: "mass", right: true },
      { title: "log-probability", right: true, spare: 2 },
      { title: "change", right: true },
      { title: "text", fills: true },
    ],
    rows: (report.recording.ablations ?? []).map(({ label, pages, mass, logProbability, baseline }) => [
      oneLine(label),
      String(pages.length),
      style.share(mass),
      logProbability.toFixed(4),
      signed(logProbability - baseline),
      pages.length === 1 ? snippet(report, pages[0]!) : "",
    ]),
  };
}

function signed(value: number): string {
  return `${value >= 0 ? "+" : ""}${value.toFixed(4)}`;
}
