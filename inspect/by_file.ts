import { forcedKind } from "./recording.ts";
import type { Report } from "./report.ts";

/** Sums over the pages of one source. A page with text of several sources counts towards each by its share. */
export interface FileFigures {
  source: string;
  /** Pages, and those of them that are always read. */
  pages: number;
  forcedPages: number;
  /** Share of attention mass, and the part of it in pages that are not always read. */
  mass: number;
  freeMass: number;
  /** Pages read, by row, as a share of all pages read. */
  selectedShare: number;
  /** Attention mass of missed pages. */
  lost: number;
}

/** Importance summed by source, the most important first. */
export function sumByFile({ recording: { facts }, texts, pages }: Report): FileFigures[] {
  const files = new Map<string, FileFigures>();
  const reads = Math.max(1, pages.selected.reduce((sum, count) => sum + count, 0));
  for (let page = 0; page < facts.pages; page++) {
    const forced = forcedKind(facts, page) !== undefined;
    for (const { source, share } of texts.places(page)) {
      const sums = files.get(source) ?? emptyFigures(source);
      files.set(source, sums);
      sums.pages += share;
      sums.forcedPages += forced ? share : 0;
      sums.mass += share * pages.mass[page]!;
      sums.freeMass += forced ? 0 : share * pages.mass[page]!;
      sums.selectedShare += share * pages.selected[page]! / reads;
      sums.lost += share * pages.lost[page]!;
    }
  }
  return [...files.values()].sort((a, b) => b.mass - a.mass);
}

function emptyFigures(source: string): FileFigures {
  return { source, pages: 0, forcedPages: 0, mass: 0, freeMass: 0, selectedShare: 0, lost: 0 };
}
