/** The part of a recording that selectors choose, ready for a view. */
import { type Facts, forcedKind, type Recording, rowIndex } from "./recording.ts";
import { massOf, scoreOf } from "./codes.ts";
import { PageTexts } from "./prompt_text.ts";
import type { Row } from "./row_log.ts";

export const ORDERS = ["score", "mass", "selected", "missed"] as const;
export type Order = (typeof ORDERS)[number];

/** The step, layer and KV head to look at, from 0. Undefined averages over all of them. */
export interface Selectors {
  layer?: number | undefined;
  head?: number | undefined;
  step?: number | undefined;
}

/** Numbers by page `[P]`, over the selected rows. */
export interface PageTable {
  /** Mean share of attention mass. */
  mass: Float64Array;
  /** Mean score in standard deviations. */
  score: Float64Array;
  /** Rows that read the page. */
  selected: Uint32Array;
  /** Rows that missed the page, and the mean share of attention mass that they lost. */
  missed: Uint32Array;
  lost: Float64Array;
}

/** How much of dense attention a set of rows retained. Shares of 1; NaN if no row counts. */
export interface Fidelity {
  /** Mass in the pages that were read. */
  kept: number;
  /** Mass in the best pages, as many as were read. */
  best: number;
  /** Share of the best pages that were read; pages that are always read do not count. */
  recall: number;
}

/** A page with enough attention mass to be among the best, which the scorer left out. */
export interface Miss {
  page: number;
  layer: number;
  head: number;
  /** Steps that missed it. */
  steps: number;
  /** Sum of its shares of attention mass in these steps, divided by all steps. */
  lost: number;
}

export interface Report {
  recording: Recording;
  selectors: Selectors;
  texts: PageTexts;
  /** Rows that were averaged: steps x layers x heads. */
  rows: number;
  pages: PageTable;
  whole: Fidelity;
  /** `[L]` */
  layers: readonly Fidelity[];
  /** By lost mass. */
  misses: readonly Miss[];
}

/** The selected steps, layers and heads. */
interface Scope {
  steps: number[];
  layers: number[];
  heads: number[];
}

export function makeReport(recording: Recording, selectors: Selectors): Report {
  const { facts } = recording;
  const scope: Scope = {
    steps: chosen(selectors.step, facts.steps),
    layers: chosen(selectors.layer, facts.layers.length),
    heads: chosen(selectors.head, facts.heads),
  };
  const { pages, misses } = tabulate(recording, scope, selectors.step !== undefined);
  return {
    recording,
    selectors,
    texts: new PageTexts(recording.text, facts.pageSize),
    rows: scope.steps.length * scope.layers.length * scope.heads.length,
    pages,
    whole: fidelity(recording, scope),
    layers: facts.layers.map((_, layer) => fidelity(recording, { ...scope, layers: [layer] })),
    misses,
  };
}

function chosen(one: number | undefined, count: number): number[] {
  return one === undefined ? Array.from({ length: count }, (_, index) => index) : [one];
}

function fidelity({ facts, figures }: Recording, scope: Scope): Fidelity {
  let [kept, best, found, wanted, rows] = [0, 0, 0, 0, 0];
  for (const row of rowsOf(scope, (step, layer, head) => rowIndex(facts, step, layer, head))) {
    const at = 4 * row.index;
    if (Number.isNaN(figures[at])) continue;
    kept += figures[at]!;
    best += figures[at + 1]!;
    found += figures[at + 2]!;
    wanted += figures[at + 3]!;
    rows++;
  }
  return { kept: kept / rows, best: best / rows, recall: found / wanted };
}

function* rowsOf(
  { steps, layers, heads }: Scope,
  index: (step: number, layer: number, head: number) => number,
): Generator<{ step: number; layer: number; head: number; index: number }> {
  for (const step of steps) {
    for (const layer of layers) {
      for (const head of heads) yield { step, layer, head, index: index(step, layer, head) };
    }
  }
}

/** Pages of the context at a step. */
export function pagesAt({ facts }: Recording, step: number): number {
  return Math.ceil((facts.promptTokens + step + 1) / facts.pageSize);
}

function tabulate(recording: Recording, scope: Scope, oneStep: boolean): { pages: PageTable; misses: Miss[] } {
  const { facts, rows } = recording;
  const table = oneStep ? emptyTable(facts.pages) : tableOfTotals(recording, scope);
  const misses = new Map<number, Miss>();
  const count = scope.steps.length * scope.layers.length * scope.heads.length;
  for (const { step, layer, head, index } of rowsOf(scope, (...at) => rowIndex(facts, ...at))) {
    const row = rows.read(index);
    if (readsAll(facts, layer, row)) {
      for (let page = pagesAt(recording, step) - 1; page >= 0; page--) table.selected[page]!++;
    }
    for (const { page, selected, wanted, mass, score } of row.entries) {
      if (oneStep) {
        table.mass[page]! += mass / count;
        table.score[page]! += score / count;
      }
      if (selected && !row.allRead) table.selected[page]!++;
      if (selected || !wanted) continue;
      table.missed[page]!++;
      table.lost[page]! += mass / count;
      addMiss(misses, (layer * facts.heads + head) * facts.pages + page, {
        page,
        layer,
        head,
        steps: 1,
        lost: mass / scope.steps.length,
      });
    }
  }
  return { pages: table, misses: [...misses.values()].sort((a, b) => b.lost - a.lost || a.page - b.page) };
}

/** Whether a row read every page of the context. Layers with a sliding window read their window and select nothing. */
export function readsAll({ layers }: Facts, layer: number, { allRead }: Row): boolean {
  return allRead && layers[layer] !== "window";
}

function addMiss(misses: Map<number, Miss>, key: number, miss: Miss): void {
  const known = misses.get(key);
  if (!known) return void misses.set(key, miss);
  known.steps++;
  known.lost += miss.lost;
}

function emptyTable(pages: number): PageTable {
  return {
    mass: new Float64Array(pages),
    score: new Float64Array(pages),
    selected: new Uint32Array(pages),
    missed: new Uint32Array(pages),
    lost: new Float64Array(pages),
  };
}

/** Masses and scores averaged over all steps. */
function tableOfTotals({ facts, totals }: Recording, { layers, heads }: Scope): PageTable {
  const table = emptyTable(facts.pages);
  const count = layers.length * heads.length;
  for (const layer of layers) {
    for (const head of heads) {
      const first = (layer * facts.heads + head) * facts.pages;
      for (let page = 0; page < facts.pages; page++) {
        table.mass[page]! += massOf(totals.mass[first + page]!) / count;
        table.score[page]! += scoreOf(totals.score[first + page]!) / count;
      }
    }
  }
  return table;
}

/** Pages in order, best first, without pages that are always read: these say nothing about the scorer. */
export function rankPages({ recording: { facts }, pages }: Report, by: Order, top: number): number[] {
  const values = by === "missed" ? pages.lost : pages[by];
  const ranked = Array.from(values.keys()).filter((page) =>
    !forcedKind(facts, page) && (by === "score" || values[page]! > 0)
  );
  return ranked.sort((a, b) => values[b]! - values[a]! || pages.mass[b]! - pages.mass[a]! || a - b).slice(0, top);
}

/** The attention mass of pages that are always read. */
export function forcedMass(
  { recording: { facts }, pages }: Report,
): Record<"sink" | "recent", { pages: number; mass: number }> {
  const sums = { sink: { pages: 0, mass: 0 }, recent: { pages: 0, mass: 0 } };
  for (let page = 0; page < facts.pages; page++) {
    const kind = forcedKind(facts, page);
    if (!kind) continue;
    sums[kind].pages++;
    sums[kind].mass += pages.mass[page]!;
  }
  return sums;
}
