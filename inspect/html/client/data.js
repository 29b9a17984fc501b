/** What the report holds, unpacked. See inspect/html/data.ts for how it is packed. */

const LOG_RANGE = 32;
const HIGHEST = 65535;
const ENTRY_NUMBERS = 7;

/** Shares of mass by code. */
const MASSES = Float32Array.from(
  { length: HIGHEST + 1 },
  (_, code) => code === 0 ? 0 : 2 ** (code / HIGHEST * LOG_RANGE - LOG_RANGE),
);

export function massOf(code) {
  return MASSES[code];
}

export function scoreOf(code) {
  return (code - 32768) / 1000;
}

function unpack(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return new Uint16Array(bytes.buffer);
}

/** The report's numbers and text, from the JSON in the page. */
export function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const numPages = data.pageEnds.length;
  const numLayers = data.layers.length;
  const columns = {};
  for (const [name, base64] of Object.entries(data.totals)) columns[name] = unpack(base64);
  return { ...data, numPages, numLayers, totals: columns, steps: data.steps.map((step) => step.map(unpack)) };
}

/** The characters of a page. */
export function pageText(data, page) {
  return data.text.slice(page === 0 ? 0 : data.pageEnds[page - 1], data.pageEnds[page]);
}

/** `a.txt:3-5` */
export function pagePlace(data, page) {
  const [source, first, last, more] = data.places[page];
  const lines = first === 0 ? "" : first === last ? `:${first}` : `:${first}-${last}`;
  return data.sources[source] + lines + (more > 0 ? ` and ${more} more` : "");
}

/** `sink`, `recent` or nothing. */
export function pageKind(data, page) {
  return page < data.sinkPages ? "sink" : page >= data.firstRecentPage ? "recent" : "";
}

/** What a page has in one layer: over all steps, or at one. Mass and score are NaN where a step kept none. */
export function cellOf(data, step, layer, page) {
  if (step === 0) {
    const at = layer * data.numPages + page;
    const { mass, score, selected, missed, lost } = data.totals;
    return {
      mass: massOf(mass[at]),
      score: scoreOf(score[at]),
      selected: selected[at],
      missed: missed[at],
      lost: massOf(lost[at]),
    };
  }
  const readAll = page < pagesAt(data, step) ? data.readAll[step - 1][layer] : 0;
  const entries = data.steps[step - 1][layer];
  for (let at = 0; at < entries.length; at += ENTRY_NUMBERS) {
    if (entries[at] + entries[at + 1] * 65536 !== page) continue;
    const cell = entryAt(entries, at);
    return { ...cell, selected: cell.selected + readAll };
  }
  return readAll === 0 ? undefined : { mass: NaN, score: NaN, selected: readAll, missed: 0, lost: 0 };
}

/** Pages that the context has at a step, from 1. */
function pagesAt({ tokens, steps, pageSize }, step) {
  return Math.ceil((tokens - steps.length + step) / pageSize);
}

function entryAt(entries, at) {
  return {
    mass: massOf(entries[at + 2]),
    score: scoreOf(entries[at + 3]),
    selected: entries[at + 4],
    missed: entries[at + 5],
    lost: massOf(entries[at + 6]),
  };
}

/** The values of one measure by layer and page, and their means over the layers by page. */
export function valuesOf(data, measure, step) {
  const { numPages, numLayers } = data;
  const cells = new Float32Array(numLayers * numPages);
  if (step === 0) fillTotals(data, measure, cells);
  else fillStep(data, measure, step, cells);
  const pages = new Float32Array(numPages);
  for (let at = 0; at < cells.length; at++) pages[at % numPages] += cells[at] / numLayers;
  return { cells, pages };
}

function fillTotals({ totals }, measure, cells) {
  const codes = measure === "missed" ? totals.lost : totals[measure];
  const read = measure === "selected" ? (code) => code : measure === "score" ? scoreOf : massOf;
  for (let at = 0; at < cells.length; at++) cells[at] = read(codes[at]);
}

function fillStep(data, measure, step, cells) {
  const { steps, readAll, numPages } = data;
  const name = measure === "missed" ? "lost" : measure;
  steps[step - 1].forEach((entries, layer) => {
    const first = layer * numPages;
    if (measure === "selected") cells.fill(readAll[step - 1][layer], first, first + pagesAt(data, step));
    for (let at = 0; at < entries.length; at += ENTRY_NUMBERS) {
      cells[first + entries[at] + entries[at + 1] * 65536] += entryAt(entries, at)[name];
    }
  });
}
