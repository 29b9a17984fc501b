import { COMPARED_FIGURES, type ComparedScorer, FIGURES, type Recording, rowIndex } from "./recording.ts";
import type { Report } from "./report.ts";

/** One scorer over the rows of a report. Shares of 1. */
export interface ComparedFigures {
  /** Undefined for the pages that the run itself read. */
  scorer: ComparedScorer | undefined;
  kept: number;
  recall: number;
  /** Share of its pages that the run also read, not counting pages that are always read. */
  overlap: number;
}

/**
 * The run and the compared scorers on the same steps; empty if nothing was compared. Dense layers count only if no layer selects,
 * because in a dense layer no scorer chooses what the run reads.
 */
export function compareScorers({ recording, selectors }: Report): ComparedFigures[] {
  const { comparison, facts } = recording;
  if (!comparison) return [];
  const indexes: number[] = [];
  const shown = selectors.layer === undefined ? facts.layers : facts.layers.slice(selectors.layer, selectors.layer + 1);
  const compared = shown.includes("sparse") ? "sparse" : "dense";
  for (let step = 0; step < facts.steps; step++) {
    for (let layer = 0; layer < facts.layers.length; layer++) {
      for (let head = 0; head < facts.heads; head++) {
        const other = (one: number | undefined, at: number): boolean => one !== undefined && one !== at;
        if (other(selectors.step, step) || other(selectors.layer, layer) || other(selectors.head, head)) continue;
        if (facts.layers[layer] === compared) indexes.push(rowIndex(facts, step, layer, head));
      }
    }
  }
  const own = (at: number): number => average(indexes, (row) => recording.figures[row * FIGURES.length + at]!);
  const run = { scorer: undefined, kept: own(0), recall: own(2) / own(3), overlap: 1 };
  return [run, ...comparison.scorers.map((scorer, at) => figuresOf(recording, scorer, at, indexes))];
}

function figuresOf(
  { comparison, figures }: Recording,
  scorer: ComparedScorer,
  at: number,
  indexes: readonly number[],
): ComparedFigures {
  const width = COMPARED_FIGURES.length;
  const mean = (figure: number): number =>
    average(indexes, (row) => comparison!.figures[(row * comparison!.scorers.length + at) * width + figure]!);
  const wanted = average(indexes, (row) => figures[row * FIGURES.length + 3]!);
  return { scorer, kept: mean(0), recall: mean(1) / wanted, overlap: mean(2) / wanted };
}

function average(rows: readonly number[], value: (row: number) => number): number {
  return rows.reduce((sum, row) => sum + value(row), 0) / rows.length;
}
