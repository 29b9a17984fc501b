/** The passages around the top pages, as a search result shows its hits. */
import { escapeControls, oneLine } from "../../engine/text/escape.ts";
import { type Order, rankPages, type Report } from "../report.ts";
import type { Paint } from "./paint.ts";
import { cutTo } from "./table.ts";
import { percent } from "./tables.ts";
import { textWidth } from "./width.ts";

/** How pages stand out: in quotation marks, or each line of them in a style. */
export type Highlight = "quotes" | ((text: string) => string);

export interface PassageStyle {
  by: Order;
  /** Pages to show. */
  top: number;
  /** Columns of the terminal. */
  width: number;
  paint: Paint;
  highlight: Highlight;
}

/** A stretch of the text with pages to highlight, in ascending order. */
interface Passage {
  /** Characters `[from, to)`. */
  from: number;
  to: number;
  pages: number[];
}

/** Characters of a passage; those of pages have a mark. */
type Marked = { character: string; marked: boolean }[];

const INDENT = "  ";
const [OPEN, CLOSE] = ["»", "«"];

/** Each passage with its place and figure, the passage of the strongest page first. */
export function passageLines(report: Report, style: PassageStyle): string[] {
  const ranked = rankPages(report, style.by, style.top);
  const columns = style.width - INDENT.length;
  const passages = passagesOf(report, ranked, columns);
  const rank = ({ pages }: Passage): number => Math.min(...pages.map((page) => ranked.indexOf(page)));
  return passages.sort((a, b) => rank(a) - rank(b)).flatMap((passage, index) => [
    ...index === 0 ? [] : [""],
    ...headLines(report, passage, style),
    ...wrapMarked(markedText(report, passage, style.highlight), columns).map((line) =>
      INDENT + lineText(line, style.highlight)
    ),
  ]);
}

/** Pages whose contexts meet become one passage. */
function passagesOf({ texts }: Report, ranked: readonly number[], columns: number): Passage[] {
  const { text } = texts.prompt;
  const passages: Passage[] = [];
  for (const page of ranked.toSorted((a, b) => a - b)) {
    const { start, end } = texts.characters(page);
    const [from, to] = [contextStart(text, start, columns), contextEnd(text, end, columns)];
    const last = passages.at(-1);
    if (last && from <= last.to) {
      last.to = to;
      last.pages.push(page);
    } else passages.push({ from, to, pages: [page] });
  }
  return passages;
}

/** Where context begins: up to a terminal line earlier, at a word, and no further than the line before; blank lines do not count. */
function contextStart(text: string, start: number, columns: number): number {
  const lineStart = (at: number): number => at === 0 ? 0 : text.lastIndexOf("\n", at - 1) + 1;
  let before = lineStart(start);
  while (before > 0 && isBreak(text[before - 1])) before--;
  const least = Math.max(lineStart(before), start - columns);
  if (least === 0 || text[least - 1] === "\n") return least;
  const space = text.slice(least, start).search(/\s/);
  return space < 0 ? start : least + space + 1;
}

/** Where context ends, likewise. */
function contextEnd(text: string, end: number, columns: number): number {
  const lineEnd = (at: number): number => {
    const found = text.indexOf("\n", at);
    return found < 0 ? text.length : found;
  };
  let after = lineEnd(end);
  while (isBreak(text[after])) after++;
  const most = Math.min(lineEnd(after), end + columns);
  if (most === text.length || text[most] === "\n") return most;
  const space = text.slice(end, most).search(/\s\S*$/);
  return space < 0 ? end : end + space;
}

function isBreak(character: string | undefined): boolean {
  return character === "\n" || character === "\r";
}

/** Place, figure and pages of a passage, in one line where they fit. */
function headLines(report: Report, { pages: shown }: Passage, { by, paint, width }: PassageStyle): string[] {
  const [place] = report.texts.places(shown[0]!);
  const where = oneLine(place === undefined ? "" : place.source + (place.firstLine === 0 ? "" : `:${place.firstLine}`));
  const figure = figureOf(report, shown, by);
  const names = `${shown.length === 1 ? "page" : "pages"} ${ranges(shown)}`;
  if (textWidth(`${where}  ${figure}  ${names}`) <= width) {
    return [`${paint.bold(where)}  ${figure}  ${paint.dim(names)}`];
  }
  return [paint.bold(cutTo(where, width)), paint.dim(cutTo(`${figure}  ${names}`, width))];
}

/** What the pages of a passage have together, of scores the best. */
function figureOf({ pages, rows }: Report, shown: readonly number[], by: Order): string {
  const sum = (values: ArrayLike<number>): number => shown.reduce((total, page) => total + values[page]!, 0);
  if (by === "mass") return percent(sum(pages.mass));
  if (by === "missed") return `missed ${percent(sum(pages.lost))}`;
  if (by === "selected") return `read ${sum(pages.selected)}/${rows * shown.length}`;
  return `score ${Math.max(...shown.map((page) => pages.score[page]!)).toFixed(2)}`;
}

/** `3, 5-7` */
function ranges(pages: readonly number[]): string {
  const parts: [first: number, last: number][] = [];
  for (const page of pages) {
    const part = parts.at(-1);
    if (part && page === part[1] + 1) part[1] = page;
    else parts.push([page, page]);
  }
  return parts.map(([first, last]) => first === last ? String(first) : `${first}-${last}`).join(", ");
}

/** The text of a passage, control characters spelt out, with its pages marked. */
function markedText({ texts }: Report, { from, to, pages }: Passage, highlight: Highlight): Marked {
  const { text } = texts.prompt;
  const out: Marked = [];
  const add = (part: string, marked: boolean): void => {
    const visible = escapeControls(part.replaceAll("\r\n", "\n").replaceAll("\t", " "));
    for (const character of visible) out.push({ character, marked });
  };
  let at = from;
  pages.forEach((page, index) => {
    const { start, end } = texts.characters(page);
    add(text.slice(at, start), false);
    const quotes = highlight === "quotes";
    add(quotes && pages[index - 1] !== page - 1 ? OPEN : "", true);
    add(text.slice(start, end), true);
    add(quotes && pages[index + 1] !== page + 1 ? CLOSE : "", true);
    at = end;
  });
  add(text.slice(at, to), false);
  return out;
}

/** Lines of up to `columns` columns, broken at spaces or within longer words, without those that are empty. */
function wrapMarked(text: Marked, columns: number): Marked[] {
  const lines: Marked[] = [];
  let [line, used, space]: [Marked, number, number] = [[], 0, -1];
  const end = (next: Marked): void => {
    lines.push(line);
    line = next;
    used = textWidth(next.map(({ character }) => character).join(""));
    space = next.findLastIndex(({ character }) => character === " ");
  };
  for (const one of text) {
    if (one.character === "\n") {
      end([]);
      continue;
    }
    const wide = textWidth(one.character);
    if (used + wide > columns) {
      if (one.character === " ") {
        end([]);
        continue;
      }
      const next = space < 0 ? [] : line.splice(space + 1);
      end(next);
    }
    if (one.character === " ") space = line.length;
    line.push(one);
    used += wide;
  }
  lines.push(line);
  return lines.filter((each) => each.some(({ character }) => character.trim() !== ""));
}

/** A line as text, without the blanks at its end. */
function lineText(line: Marked, highlight: Highlight): string {
  const ink = line.slice(0, line.findLastIndex(({ character }) => character.trim() !== "") + 1);
  let [out, run] = ["", ""];
  ink.forEach(({ character, marked }, at) => {
    run += character;
    if (ink[at + 1]?.marked === marked) return;
    out += marked && highlight !== "quotes" ? highlight(run) : run;
    run = "";
  });
  return out;
}
