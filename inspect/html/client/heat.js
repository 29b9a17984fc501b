/** The heat maps: pages from left to right, layers from top to bottom. */
import { pageKind } from "./data.js";

/** Decades that the colours of shares span. */
const DECADES = 3;
const MARK_PIXELS = 4;

/** A number of a colour scale, 0 to 1, for each value; pages that are always read do not set the scale. */
export function scaleOf(data, measure, values) {
  let top = 0;
  for (let at = 0; at < values.length; at++) {
    if (values[at] > top && pageKind(data, at % data.numPages) === "") top = values[at];
  }
  const plain = measure === "score" || measure === "selected";
  return (value) => {
    if (!(value > 0) || top === 0) return 0;
    const share = plain ? value / top : 1 + Math.log10(value / top) / DECADES;
    return Math.max(0.04, Math.min(1, share));
  };
}

function parseColor(text) {
  return text.trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
}

/** The colours of the page's style, so that both schemes are right. */
export function readColors() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => parseColor(style.getPropertyValue(name));
  return {
    palette: paletteOf([color("--cold"), color("--mild"), color("--warm"), color("--hot")]),
    sink: color("--sink"),
    recent: color("--recent"),
    cursor: style.getPropertyValue("--cursor"),
  };
}

/** 256 colours along a ramp, three numbers each. */
function paletteOf(ramp) {
  return Uint8Array.from({ length: 256 }, (_, at) => at).reduce((palette, at) => {
    palette.set(mix(ramp, at / 255), 3 * at);
    return palette;
  }, new Uint8Array(3 * 256));
}

function mix(ramp, share) {
  const place = share * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[low].map((part, at) => part + (ramp[low + 1][at] - part) * (place - low));
}

/** Draws pages `[first, last)` of all layers; a column of several pages shows the highest. */
export function drawHeat(canvas, data, values, scale, colors, first, last, cursor) {
  const columns = Math.max(1, Math.min(Math.floor(canvas.clientWidth), last - first));
  const layers = data.numLayers;
  const image = new ImageData(columns, layers);
  for (let layer = 0; layer < layers; layer++) {
    for (let column = 0; column < columns; column++) {
      const [from, to] = columnPages(column, columns, first, last);
      let most = -Infinity;
      for (let page = from; page < to; page++) most = Math.max(most, values[layer * data.numPages + page]);
      const [at, color] = [4 * (layer * columns + column), 3 * Math.round(255 * scale(most))];
      for (let part = 0; part < 3; part++) image.data[at + part] = colors.palette[color + part];
      image.data[at + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(columns, layers);
  small.getContext("2d").putImageData(image, 0, 0);
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  const heat = canvas.height - MARK_PIXELS * ratio;
  context.drawImage(small, 0, 0, canvas.width, heat);
  drawMarks(context, data, colors, first, last, heat);
  drawCursor(context, colors, first, last, cursor, heat / layers);
}

function columnPages(column, columns, first, last) {
  const from = first + Math.floor(column * (last - first) / columns);
  return [from, Math.max(from + 1, first + Math.floor((column + 1) * (last - first) / columns))];
}

/** A line under the pages that are always read. */
function drawMarks(context, data, colors, first, last, top) {
  const { width, height } = context.canvas;
  const wide = width / (last - first);
  const paint = (from, to, color) => {
    const [start, end] = [Math.max(from, first), Math.min(to, last)];
    if (start >= end) return;
    context.fillStyle = `rgb(${color.join(",")})`;
    context.fillRect((start - first) * wide, top, Math.max(2, (end - start) * wide), height - top);
  };
  paint(0, data.sinkPages, colors.sink);
  paint(data.firstRecentPage, data.numPages, colors.recent);
}

function drawCursor(context, colors, first, last, cursor, rowHeight) {
  const { width } = context.canvas;
  const wide = width / (last - first);
  context.strokeStyle = colors.cursor;
  context.lineWidth = 2;
  const left = (cursor.page - first) * wide;
  context.strokeRect(left - 1, cursor.layer * rowHeight, Math.max(3, wide) + 2, rowHeight);
  context.strokeRect(left - 1, 1, Math.max(3, wide) + 2, context.canvas.height - 2);
}

/** The page and layer under a point of a heat map; of a column's pages the one with the highest value. */
export function cellAt(canvas, data, values, event, first, last) {
  const box = canvas.getBoundingClientRect();
  const columns = Math.max(1, Math.min(Math.floor(canvas.clientWidth), last - first));
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
