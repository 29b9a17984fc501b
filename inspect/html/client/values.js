/** The measures of pages, from the rows and totals of the recording, as inspect/report.ts computes them for the terminal. */
import { alwaysRead } from "./recording.js";

const LOG_RANGE = 32;
const HIGHEST = 65535;

/** Shares of mass by code. */
const MASSES = Float32Array.from(
  { length: HIGHEST + 1 },
  (_, code) => code === 0 ? 0 : 2 ** (code / HIGHEST * LOG_RANGE - LOG_RANGE),
);

function scoreOf(code) {
  return (code - 32768) / 1000;
}

/** The measures, by the names that `--by` has for them. */
export const MEASURES = { mass: "Attention", selected: "Read", missed: "Missed", score: "Score" };

/** The rows that are shown: of steps `[first, last]` from 1, of one layer, of one KV head; what is undefined is all. */
export function scopeOf(data, { steps, layer, head }) {
  const [first, last] = steps ?? [1, data.steps];
  const heads = head === undefined ? numbersTo(data.heads) : [head];
  return {
    steps: numbersTo(last - first + 1).map((step) => step + first - 1),
    layers: layer === undefined ? numbersTo(data.numLayers) : [layer],
    heads,
    all: first === 1 && last === data.steps,
  };
}

function numbersTo(count) {
  return Array.from({ length: count }, (_, number) => number);
}

/** Pages that the context has at a step, counted from 0. */
function pagesAt({ promptTokens, pageSize }, step) {
  return Math.ceil((promptTokens + step + 1) / pageSize);
}

/**
 * One measure by layer and page `[L, P]` over the steps and heads of a scope, and its mean over the layers of the scope by page `[P]`.
 * Mass, missed mass and score are means; read counts rows. Chosen steps know mass and score of pages that were read or among the best.
 */
export function valuesOf(data, measure, scope) {
  const { numPages, numLayers } = data;
  const cells = new Float32Array(numLayers * numPages);
  for (let layer = 0; layer < numLayers; layer++) {
    const line = cells.subarray(layer * numPages, (layer + 1) * numPages);
    if (scope.all && (measure === "mass" || measure === "score")) addTotals(data, measure, scope, layer, line);
    else addRows(data, measure, scope, layer, line);
  }
  const pages = new Float32Array(numPages);
  const weight = measure === "selected" ? 1 : 1 / scope.layers.length;
  for (const layer of scope.layers) {
    const first = layer * numPages;
    for (let page = 0; page < numPages; page++) pages[page] += weight * cells[first + page];
  }
  return { cells, pages };
}

function addTotals({ totals, numPages, heads: numHeads }, measure, { heads }, layer, line) {
  const codes = totals[measure];
  for (const head of heads) {
    const first = (layer * numHeads + head) * numPages;
    if (measure === "mass") {
      for (let page = 0; page < numPages; page++) line[page] += MASSES[codes[first + page]] / heads.length;
    } else {
      for (let page = 0; page < numPages; page++) line[page] += scoreOf(codes[first + page]) / heads.length;
    }
  }
}

function addRows(data, measure, { steps, heads }, layer, line) {
  const { rows, kinds, heads: numHeads, numLayers } = data;
  const count = steps.length * heads.length;
  for (const step of steps) {
    for (const head of heads) {
      const row = (step * numLayers + layer) * numHeads + head;
      const allRead = rows.allRead[row] === 1;
      // A layer with a sliding window reads its window and selects nothing.
      if (measure === "selected" && allRead && kinds[layer] !== "window") {
        for (let page = pagesAt(data, step) - 1; page >= 0; page--) line[page]++;
      }
      for (let entry = rows.starts[row]; entry < rows.starts[row + 1]; entry++) {
        line[rows.page[entry]] += entryValue(rows, measure, entry, allRead) / (measure === "selected" ? 1 : count);
      }
    }
  }
}

function entryValue(rows, measure, entry, allRead) {
  if (measure === "mass") return MASSES[rows.mass[entry]];
  if (measure === "score") return scoreOf(rows.score[entry]);
  if (measure === "selected") return rows.selected[entry] && !allRead ? 1 : 0;
  return rows.selected[entry] ? 0 : MASSES[rows.mass[entry]];
}

/** The figures of one page by layer, and over the layers of the scope. */
export function figuresOf(data, scope, page) {
  const layers = numbersTo(data.numLayers).map((layer) => {
    const figures = { mass: 0, score: 0, selected: 0, missed: 0 };
    for (const measure of Object.keys(figures)) figures[measure] = oneValue(data, measure, scope, layer, page);
    return figures;
  });
  const sum = (measure) => scope.layers.reduce((total, layer) => total + layers[layer][measure], 0);
  const whole = { mass: 0, score: 0, selected: sum("selected"), missed: 0 };
  for (const measure of ["mass", "score", "missed"]) whole[measure] = sum(measure) / scope.layers.length;
  return { layers, whole, rows: scope.steps.length * scope.layers.length * scope.heads.length };
}

function oneValue(data, measure, scope, layer, page) {
  const { totals, numPages, rows, kinds, heads: numHeads, numLayers } = data;
  const { steps, heads } = scope;
  let value = 0;
  if (scope.all && (measure === "mass" || measure === "score")) {
    const read = measure === "mass" ? (code) => MASSES[code] : scoreOf;
    for (const head of heads) value += read(totals[measure][(layer * numHeads + head) * numPages + page]);
    return value / heads.length;
  }
  for (const step of steps) {
    for (const head of heads) {
      const row = (step * numLayers + layer) * numHeads + head;
      const allRead = rows.allRead[row] === 1;
      if (measure === "selected" && allRead && kinds[layer] !== "window" && page < pagesAt(data, step)) value++;
      const entry = entryOf(rows, row, page);
      if (entry >= 0) value += entryValue(rows, measure, entry, allRead);
    }
  }
  return measure === "selected" ? value : value / (steps.length * heads.length);
}

/** The entry of a page in a row, -1 without one; entries ascend by page. */
function entryOf({ starts, page: pages }, row, page) {
  let [low, high] = [starts[row], starts[row + 1]];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (pages[middle] < page) low = middle + 1;
    else high = middle;
  }
  return low < starts[row + 1] && pages[low] === page ? low : -1;
}

/** Decades that the colors of the heat map span, for measures that are shares, and its faintest color. */
const DECADES = 3;
const LEAST = 0.04;
/** Below 1, so that shading shows small values too; text has few readable colors, so a logarithm would make them all alike. */
const TEXT_POWER = 0.7;

/** A function from values to 0 .. 1, for the colors of "text" or "map"; pages that are always read do not set the scale. */
export function scaleOf(data, measure, values, use) {
  let top = 0;
  for (let at = 0; at < values.length; at++) {
    if (values[at] > top && alwaysRead(data, at % data.numPages) === "") top = values[at];
  }
  const linear = measure === "score" || measure === "selected";
  return (value) => {
    if (!(value > 0) || top === 0) return 0;
    if (use === "text") return Math.min(1, value / top) ** TEXT_POWER;
    const share = linear ? value / top : 1 + Math.log10(value / top) / DECADES;
    return Math.max(LEAST, Math.min(1, share));
  };
}

/** The pages with the highest values, without those that are always read. */
export function topPages(data, values, count) {
  const pages = [];
  for (let page = 0; page < data.numPages; page++) {
    if (values[page] > 0 && alwaysRead(data, page) === "") pages.push(page);
  }
  return pages.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}
