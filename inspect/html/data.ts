/** What the HTML report holds, packed; inspect/html/client/data.js unpacks it. */
import { massCode, scoreCode } from "../codes.ts";
import { rowIndex } from "../recording.ts";
import type { Place } from "../prompt_text.ts";
import { makeReport, type Order, readsAll, type Report } from "../report.ts";
import type { Entry } from "../row_log.ts";

/** Missed pages in the table. */
const MOST_MISSES = 100;
const MISS_CHARACTERS = 90;
/** Counts have 16 bits. */
const MOST_COUNTED = 65535;

/** A table that the report shows as it is. */
export interface TextTable {
  caption: string;
  titles: readonly string[];
  rows: readonly (readonly string[])[];
}

/** By layer and page. */
interface Packed {
  mass: Uint16Array;
  score: Uint16Array;
  selected: Uint16Array;
  missed: Uint16Array;
  lost: Uint16Array;
}

/** All of a report, whatever its selectors, as plain JSON. */
export function htmlData(
  { recording, texts }: Report,
  measure: Order,
  facts: readonly (readonly [string, string])[],
  tables: readonly TextTable[],
): Record<string, unknown> {
  const { facts: { pages, pageSize, layers, firstRecentPage, sinkPages, steps }, text } = recording;
  const whole = makeReport(recording, {});
  const sources = new Map<string, number>();
  const pageList = Array.from({ length: pages }, (_, page) => page);
  return {
    ...{ measure, facts, tables, pageSize, sinkPages, firstRecentPage },
    tokens: text.tokenEnds.length,
    text: text.text,
    pageEnds: pageList.map((page) => texts.characters(page).end),
    places: pageList.map((page) => packPlace(texts.places(page), sources)),
    sources: [...sources.keys()],
    layers: whole.layers.map(({ kept, best, recall }, layer) => ({
      kind: layers[layer],
      kept: finite(kept),
      best: finite(best),
      recall: finite(recall),
    })),
    totals: Object.fromEntries(Object.entries(packTotals(whole)).map(([name, numbers]) => [name, base64(numbers)])),
    steps: Array.from({ length: steps }, (_, step) => layers.map((_, layer) => base64(packStep(whole, step, layer)))),
    readAll: Array.from({ length: steps }, (_, step) => layers.map((_, layer) => headsReadingAll(whole, step, layer))),
    missed: whole.misses.slice(0, MOST_MISSES).map(({ page, layer, head, steps, lost }) => {
      const [place] = texts.places(page);
      const where = place ? `${place.source}${place.firstLine ? `:${place.firstLine}` : ""}` : "";
      return [page, layer, head, steps, lost, where, texts.text(page).slice(0, MISS_CHARACTERS)];
    }),
  };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** Number of the source, lines, and how many other places the page has. */
function packPlace(places: readonly Place[], sources: Map<string, number>): number[] {
  const { source, firstLine, lastLine } = places[0]!;
  if (!sources.has(source)) sources.set(source, sources.size);
  return [sources.get(source)!, firstLine, lastLine, places.length - 1];
}

function packTotals({ recording }: Report): Packed {
  const { facts } = recording;
  const size = facts.layers.length * facts.pages;
  const packed = {
    mass: new Uint16Array(size),
    score: new Uint16Array(size),
    selected: new Uint16Array(size),
    missed: new Uint16Array(size),
    lost: new Uint16Array(size),
  };
  facts.layers.forEach((_, layer) => {
    const { pages } = makeReport(recording, { layer });
    for (let page = 0; page < facts.pages; page++) {
      const at = layer * facts.pages + page;
      packed.mass[at] = massCode(pages.mass[page]!);
      packed.score[at] = scoreCode(pages.score[page]!);
      packed.selected[at] = Math.min(MOST_COUNTED, pages.selected[page]!);
      packed.missed[at] = Math.min(MOST_COUNTED, pages.missed[page]!);
      packed.lost[at] = massCode(pages.lost[page]!);
    }
  });
  return packed;
}

/** KV heads that read every page of a step and layer. */
function headsReadingAll({ recording: { facts, rows } }: Report, step: number, layer: number): number {
  let count = 0;
  for (let head = 0; head < facts.heads; head++) {
    if (readsAll(facts, layer, rows.read(rowIndex(facts, step, layer, head)))) count++;
  }
  return count;
}

/**
 * Seven numbers for each page of a step and layer: page in two halves, mass, score, heads that selected it, that missed it, lost mass.
 * Heads that read every page are counted apart, and give the pages that they wanted only.
 */
function packStep({ recording }: Report, step: number, layer: number): Uint16Array {
  const { facts, rows } = recording;
  const sums = new Map<number, { mass: number; score: number; selected: number; missed: number; lost: number }>();
  const add = ({ page, selected, wanted, mass, score }: Entry, allRead: boolean): void => {
    const sum = sums.get(page) ?? { mass: 0, score: 0, selected: 0, missed: 0, lost: 0 };
    sums.set(page, sum);
    sum.mass += mass / facts.heads;
    sum.score += score / facts.heads;
    sum.selected += selected && !allRead ? 1 : 0;
    sum.missed += wanted && !selected ? 1 : 0;
    sum.lost += wanted && !selected ? mass / facts.heads : 0;
  };
  for (let head = 0; head < facts.heads; head++) {
    const row = rows.read(rowIndex(facts, step, layer, head));
    for (const entry of row.entries) add(entry, row.allRead);
  }
  return Uint16Array.from(
    [...sums].sort(([a], [b]) => a - b).flatMap(([page, { mass, score, selected, missed, lost }]) => [
      ...[page % 65536, Math.floor(page / 65536), massCode(mass), scoreCode(score), selected, missed, massCode(lost)],
    ]),
  );
}

function base64(numbers: Uint16Array): string {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength).toBase64();
}
