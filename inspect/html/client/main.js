/** State, controls and events of the report. */
import { readData, valuesOf } from "./data.js";
import { cellAt, drawHeat, readColors, scaleOf } from "./heat.js";
import { describe, element, oneLine, percent, showPage, showTop, tableOf, topPages } from "./panel.js";

/** Pages of the enlarged map. */
const ZOOM_PAGES = 128;
const PIXELS_A_LAYER = 14;

const data = readData();
const state = { measure: data.measure, step: 0, page: 0, layer: 0 };
const find = (id) => document.getElementById(id);
const [whole, zoom, tip] = [find("whole"), find("zoom"), find("tip")];
let values = valuesOf(data, state.measure, state.step);
let scale = scaleOf(data, state.measure, values.cells);
let colors = readColors();

function zoomRange() {
  const count = Math.min(ZOOM_PAGES, data.numPages);
  const first = Math.max(0, Math.min(data.numPages - count, state.page - Math.floor(count / 2)));
  return [first, first + count];
}

function drawMaps() {
  drawHeat(whole, data, values.cells, scale, colors, 0, data.numPages, state);
  drawHeat(zoom, data, values.cells, scale, colors, ...zoomRange(), state);
}

/** After the measure or the step changed. */
function showValues() {
  values = valuesOf(data, state.measure, state.step);
  scale = scaleOf(data, state.measure, values.cells);
  find("step-name").textContent = state.step === 0
    ? `all ${data.steps.length}`
    : `${state.step} of ${data.steps.length}`;
  find("step").setAttribute("aria-valuetext", find("step-name").textContent);
  showTop(find("top"), data, state, values.pages, (page) => moveTo(page));
  moveTo(state.page, state.layer);
}

/** Looks at a page. */
function moveTo(page, layer = state.layer) {
  state.page = Math.max(0, Math.min(data.numPages - 1, page));
  state.layer = Math.max(0, Math.min(data.numLayers - 1, layer));
  drawMaps();
  showPage(find("panel"), data, state);
  find("live").textContent = describe(data, state, state.page, state.layer);
}

function onKey(event) {
  const { page, layer } = state;
  const moves = {
    ArrowLeft: [page - 1, layer],
    ArrowRight: [page + 1, layer],
    ArrowUp: [page, layer - 1],
    ArrowDown: [page, layer + 1],
    PageUp: [page - 32, layer],
    PageDown: [page + 32, layer],
    Home: [0, layer],
    End: [data.numPages - 1, layer],
  };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  moveTo(...move);
}

function listenTo(canvas, range) {
  const cell = (event) => cellAt(canvas, data, values.cells, event, ...range());
  canvas.addEventListener("click", (event) => {
    const { page, layer } = cell(event);
    moveTo(page, layer);
  });
  canvas.addEventListener("mousemove", (event) => {
    const { page, layer } = cell(event);
    tip.textContent = describe(data, state, page, layer);
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
  });
  canvas.addEventListener("mouseleave", () => tip.hidden = true);
  canvas.addEventListener("keydown", onKey);
}

function fillFacts() {
  const list = find("facts");
  for (const [label, text] of data.facts) list.append(element("dt", label), element("dd", text));
  const recalls = data.layers.map(({ kind, recall, kept, best }, layer) => [
    String(layer),
    kind,
    percent(recall),
    percent(kept),
    percent(best),
  ]);
  const table = tableOf(
    "By layer",
    ["layer", "kind", "page recall", "mass kept", "by the best pages"],
    recalls,
  );
  [...table.tBodies[0].rows].forEach((row, layer) => {
    const bar = element("span", undefined, "bar");
    bar.style.width = `${Math.round(80 * (data.layers[layer].recall ?? 0))}px`;
    row.cells[2].prepend(bar);
  });
  find("layers").append(table);
}

function fillTables() {
  const missed = data.missed.map(([page, layer, head, steps, lost, place, text]) => [
    ...[String(page), String(layer), String(head), percent(lost), String(steps), place, oneLine(text)],
  ]);
  const titles = ["page", "layer", "head", "mass lost", "steps", "where", "text"];
  const caption = "Missed: exact attention wanted them, the scorer left them out";
  find("missed").append(tableOf(caption, titles, missed, 0, (page, row) => moveTo(page, Number(row[1]))));
  for (const { caption: name, titles: heads, rows } of data.tables) find("tables").append(tableOf(name, heads, rows));
}

function start() {
  whole.style.height = zoom.style.height = `${data.numLayers * PIXELS_A_LAYER + 4}px`;
  find("step").max = String(data.steps.length);
  find("measure").value = state.measure;
  find("measure").addEventListener("change", (event) => {
    state.measure = event.target.value;
    showValues();
  });
  find("step").addEventListener("input", (event) => {
    state.step = Number(event.target.value);
    showValues();
  });
  listenTo(whole, () => [0, data.numPages]);
  listenTo(zoom, zoomRange);
  addEventListener("resize", drawMaps);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colors = readColors();
    drawMaps();
  });
  fillFacts();
  fillTables();
  state.page = topPages(data, values.pages, 1)[0] ?? 0;
  showValues();
}

start();
