import { sumByFile } from "./by_file.ts";
import { compareScorers } from "./compared.ts";
import { FIGURES, forcedKind, rowIndex } from "./recording.ts";
import { type Fidelity, forcedMass, type Order, rankPages, type Report } from "./report.ts";

/** A change that a reader of an older one would trip over gets another number; docs/inspect.schema.json is its schema. */
export const SCHEMA = "pagesift.inspect/1";

/** The report as `--json` prints it. Shares are of 1, indexes from 0, lines and steps from 1. */
export function toJson(report: Report, { by, top }: { by: Order; top: number }): Record<string, unknown> {
  const { recording, selectors } = report;
  const { layers: _, answerIds, answerText, finish, ...facts } = recording.facts;
  return {
    schema: SCHEMA,
    run: snakeKeys(facts),
    answer: { text: answerText, ids: answerIds, finish },
    selectors: {
      layer: selectors.layer ?? null,
      head: selectors.head ?? null,
      step: selectors.step === undefined ? null : selectors.step + 1,
      by,
      top,
    },
    rows: report.rows,
    whole: fidelityJson(report.whole),
    always_read: forcedMass(report),
    pages: rankPages(report, by, top).map((page) => pageJson(report, page)),
    layers: report.layers.map((fidelity, layer) => ({
      layer,
      kind: recording.facts.layers[layer],
      ...fidelityJson(fidelity),
    })),
    steps: stepsJson(report),
    missed: report.misses.slice(0, top).map(({ page, layer, head, steps, lost }) => ({
      ...{ page, layer, head, steps, mass_lost: lost, ...placeJson(report, page) },
    })),
    files: sumByFile(report).map((file) => snakeKeys({ ...file })),
    scorers: compareScorers(report).map(({ scorer, kept, recall, overlap }) => ({
      scorer: scorer ?? null,
      mass_kept: finite(kept),
      recall: finite(recall),
      shared_with_run: finite(overlap),
    })),
    ablations: (recording.ablations ?? []).map(({ label, pages, mass, logProbability, baseline }) => ({
      ...{ masked: label, pages, mass, log_probability: logProbability, baseline, change: logProbability - baseline },
    })),
  };
}

function pageJson(report: Report, page: number): Record<string, unknown> {
  const { pages, recording: { facts, promptReads } } = report;
  return {
    page,
    ...placeJson(report, page),
    always_read: forcedKind(facts, page) ?? null,
    score: pages.score[page],
    mass: pages.mass[page],
    selected: pages.selected[page],
    missed: pages.missed[page],
    mass_lost: pages.lost[page],
    ...promptReads && { prompt_reads: promptReads[page] },
  };
}

function placeJson({ texts }: Report, page: number): Record<string, unknown> {
  const { first, last } = texts.tokens(page);
  return {
    first_token: first,
    last_token: last,
    places: texts.places(page).map(({ source, firstLine, lastLine, share }) => ({
      ...{ source, first_line: firstLine || null, last_line: lastLine || null, share },
    })),
    text: texts.text(page),
  };
}

/** What each step kept in each layer, averaged over the KV heads; null in layers with a sliding window. */
function stepsJson({ recording: { facts, figures } }: Report): Record<string, unknown>[] {
  return Array.from({ length: facts.steps }, (_, step) => ({
    step: step + 1,
    mass_kept_by_layer: facts.layers.map((_, layer) => {
      let sum = 0;
      for (let head = 0; head < facts.heads; head++) {
        sum += figures[FIGURES.length * rowIndex(facts, step, layer, head)]!;
      }
      return finite(sum / facts.heads);
    }),
  }));
}

function fidelityJson({ kept, best, recall }: Fidelity): Record<string, number | null> {
  return { mass_kept: finite(kept), best_mass: finite(best), recall: finite(recall) };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function snakeKeys(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [snake(name), value]));
}
