/** Colors, and the heat maps: pages from left to right, layers from top to bottom. */
import { alwaysRead } from "./recording.js";

const MARK_PIXELS = 4;
const LEVELS = 64;

function parseColor(text) {
  return text.trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
}

/** The colors of the page's style, so that both schemes are right. `map` and `text` give a color for 0 .. 1. */
export function readColors() {
  const style = getComputedStyle(document.documentElement);
  const ramp = (names) => names.map((name) => parseColor(style.getPropertyValue(name)));
  const map = ramp(["--cold", "--mild", "--warm", "--hot"]);
  const text = ramp(["--ground", "--shade"]);
  return {
    map: (level) => colorOf(map, level),
    text: (level) => level > 0 ? colorOf(text, level) : "",
    fixed: style.getPropertyValue("--fixed"),
    ink: style.getPropertyValue("--ink"),
  };
}

/** One of 64 colors along a ramp. */
function colorOf(ramp, level) {
  const place = Math.round(level * LEVELS) / LEVELS * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  return `rgb(${ramp[low].map((part, at) => Math.round(part + (ramp[low + 1][at] - part) * (place - low))).join(",")})`;
}

/** Draws pages `[first, last)` of all layers; a column of several pages shows the highest. */
export function drawHeat(canvas, data, values, scale, colors, [first, last], { page, layer }) {
  const columns = columnsOf(canvas, first, last);
  const layers = data.numLayers;
  const small = new OffscreenCanvas(columns, layers);
  const pixels = small.getContext("2d");
  for (let row = 0; row < layers; row++) {
    for (let column = 0; column < columns; column++) {
      const [from, to] = columnPages(column, columns, first, last);
      let most = -Infinity;
      for (let at = from; at < to; at++) most = Math.max(most, values[row * data.numPages + at]);
      pixels.fillStyle = colors.map(scale(most));
      pixels.fillRect(column, row, 1, 1);
    }
  }
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const heat = canvas.height - MARK_PIXELS * ratio;
  context.drawImage(small, 0, 0, canvas.width, heat);
  drawMarks(context, data, colors, first, last, heat);
  drawCursor(context, colors, first, last, page, layer, heat / layers);
}

function columnsOf(canvas, first, last) {
  return Math.max(1, Math.min(Math.floor(canvas.clientWidth), last - first));
}

function columnPages(column, columns, first, last) {
  const from = first + Math.floor(column * (last - first) / columns);
  return [from, Math.max(from + 1, first + Math.floor((column + 1) * (last - first) / columns))];
}

/** A line under the pages that are always read. */
function drawMarks(context, data, colors, first, last, top) {
  const { width, height } = context.canvas;
  const wide = width / (last - first);
  context.fillStyle = colors.fixed;
  for (const [from, to] of [[0, data.sinkPages], [data.firstRecentPage, data.numPages]]) {
    const [start, end] = [Math.max(from, first), Math.min(to, last)];
    if (start < end) context.fillRect((start - first) * wide, top, Math.max(2, (end - start) * wide), height - top);
  }
}

function drawCursor(context, colors, first, last, page, layer, rowHeight) {
  const { width, height } = context.canvas;
  const wide = width / (last - first);
  context.strokeStyle = colors.ink;
  context.lineWidth = 2;
  const left = (page - first) * wide;
  if (layer !== undefined) context.strokeRect(left - 1, layer * rowHeight, Math.max(3, wide) + 2, rowHeight);
  context.strokeRect(left - 1, 1, Math.max(3, wide) + 2, height - 2);
}

/** The page and layer under a point of a heat map; of a column's pages the one with the highest value. */
export function cellAt(canvas, data, values, event, [first, last]) {
  const box = canvas.getBoundingClientRect();
  const columns = columnsOf(canvas, first, last);
  const limit = (value, most) => Math.max(0, Math.min(most, Math.floor(value)));
  const layer = limit((event.clientY - box.top) / (box.height - MARK_PIXELS) * data.numLayers, data.numLayers - 1);
  const column = limit((event.clientX - box.left) / box.width * columns, columns - 1);
  const [from, to] = columnPages(column, columns, first, last);
  let best = from;
  for (let page = from; page < to; page++) {
    if (values[layer * data.numPages + page] > values[layer * data.numPages + best]) best = page;
  }
  return { page: best, layer };
}

/** What kind of page the shading leaves out, for labels. */
export function alwaysText(data, page) {
  const kind = alwaysRead(data, page);
  return kind === "" ? "" : `always read (${kind} pages)`;
}
