/** What the HTML report contains; inspect/html/client/recording.js unpacks it. */
import type { Place } from "../prompt_text.ts";
import { makeReport, type Order, type Report } from "../report.ts";
import { writeTrace } from "../trace.ts";

/** Rows of the table of missed pages. */
const MOST_MISSES = 100;
const MISS_CHARACTERS = 90;

/** A table that the report shows as it is. */
export interface TextTable {
  caption: string;
  titles: readonly string[];
  rows: readonly (readonly string[])[];
}

/** What a report opens with. */
export interface HtmlOptions {
  by: Order;
  /** Labels and texts that describe the run. */
  facts: readonly (readonly [string, string])[];
  tables: readonly TextTable[];
}

/** The contents of a report in base64. */
export interface HtmlData {
  /** The recording as a trace: text, tokens, totals and rows, from which the page computes every measure. */
  trace: string;
  /** What it would take more code to compute there, as JSON in a gzip stream. */
  view: string;
}

export async function htmlData(report: Report, options: HtmlOptions): Promise<HtmlData> {
  const json = new TextEncoder().encode(JSON.stringify(viewOf(report, options)));
  return { trace: (await writeTrace(report.recording)).toBase64(), view: (await gzip(json)).toBase64() };
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function viewOf({ recording, selectors, texts }: Report, { by, facts, tables }: HtmlOptions): Record<string, unknown> {
  const whole = makeReport(recording, {}); // the page has selectors of its own
  const sources = new Map<string, number>();
  const places = Array.from({ length: recording.facts.pages }, (_, page) => packPlace(texts.places(page), sources));
  return {
    opensWith: { measure: by, ...selectors },
    ...{ labels: facts, tables, places, sources: [...sources.keys()] },
    fidelity: whole.layers.map(({ kept, best, recall }) => ({
      ...{ kept: finite(kept), best: finite(best), recall: finite(recall) },
    })),
    misses: whole.misses.slice(0, MOST_MISSES).map(({ page, layer, head, steps, lost }) => {
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
