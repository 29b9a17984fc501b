/**
 * Line plots as self-contained SVG: no font, no script, no network. They follow the dark or light setting of the
 * reader.
 */
import { type Axis, tokenAxis, valueAxis } from "./axis.ts";

export interface Point {
  x: number;
  y: number;
  low?: number | undefined;
  high?: number | undefined;
}

export interface Series {
  name: string;
  points: readonly Point[];
}

/** One coordinate system. */
export interface Panel {
  title: string;
  xTitle: string;
  /** Whether x is measured, instead of token counts that are labelled where they were measured. */
  measuredX?: boolean;
  yTitle: string;
  series: readonly Series[];
}

export interface Plot {
  title: string;
  /** Where and how the data was measured. */
  footer: string;
  panels: readonly Panel[];
}

const WIDTH = 860;
const PANEL_HEIGHT = 380;
const HEAD = 40;
const FOOT = 32;
const MARGIN = { left: 84, right: 212, top: 36, bottom: 56 } as const;
const LEGEND_LINE = 20;
const LIGHT = ["#0b63ad", "#c2410c", "#047857", "#7e22ce", "#92620a", "#be185d", "#0e7490", "#4b5563"];
const DARK = ["#6cb2ff", "#fb923c", "#34d399", "#c99bff", "#facc15", "#f472b6", "#22d3ee", "#b6bec9"];
/** If lines overlap, those below show through the gaps. */
const DASHES = ["none", "10 6", "4 5", "14 4 3 4", "7 3", "2 4"] as const;

/** The whole plot. @throws {Error} if there is no point to show */
export function renderPlot({ title, footer, panels }: Plot): string {
  const shown = panels.filter(({ series }) => series.some(({ points }) => points.length > 0));
  if (shown.length === 0) throw new Error("There is nothing to plot");
  const height = HEAD + shown.length * PANEL_HEIGHT + FOOT;
  const names = [...new Set(shown.flatMap(({ series }) => series.map(({ name }) => name)))];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    `<style>${styles()}</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    `<text class="head" x="${MARGIN.left}" y="26">${escapeXml(title)}</text>`,
    ...shown.map((panel, index) => renderPanel(panel, HEAD + index * PANEL_HEIGHT, names)),
    `<text class="foot" x="${MARGIN.left}" y="${height - 12}">${escapeXml(footer)}</text>`,
    "</svg>",
    "",
  ].join("\n");
}

function styles(): string {
  const colours = (values: readonly string[]): string =>
    values.map((value, index) => `.c${index}{stroke:${value};fill:${value}}`).join("");
  return [
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.head{font-size:16px;font-weight:600}.sub{font-weight:600}",
    ".foot{font-size:11px;fill:#52606d}.ground{fill:#fff}.grid{stroke:#d9dee4}.axis{stroke:#52606d}",
    ".line{fill:none;stroke-width:2}.bar{stroke-width:1}",
    colours(LIGHT),
    "@media(prefers-color-scheme:dark){text{fill:#e6eaee}.foot{fill:#a4afba}.ground{fill:#14181d}.grid{stroke:#333b44}",
    `.axis{stroke:#a4afba}${colours(DARK)}}`,
  ].join("");
}

function renderPanel(
  { title, xTitle, measuredX = false, yTitle, series }: Panel,
  top: number,
  names: readonly string[],
): string {
  const points = series.flatMap((each) => each.points);
  const [left, right] = [MARGIN.left, WIDTH - MARGIN.right];
  const [ceiling, floor] = [top + MARGIN.top, top + PANEL_HEIGHT - MARGIN.bottom];
  const x = (measuredX ? valueAxis : tokenAxis)(xTitle, points.map((point) => point.x), left, right);
  const y = valueAxis(
    yTitle,
    points.flatMap(({ y: value, low, high }) => [value, low ?? value, high ?? value]),
    floor,
    ceiling,
  );
  return [
    `<text class="sub" x="${left}" y="${top + 18}">${escapeXml(title)}</text>`,
    ...y.ticks.map((tick) => yTick(y, tick, left, right)),
    ...x.ticks.map((tick) => xTick(x, tick, ceiling, floor)),
    `<path class="axis" fill="none" d="M${left} ${ceiling}V${floor}H${right}"/>`,
    `<text text-anchor="middle" x="${(left + right) / 2}" y="${floor + 42}">${escapeXml(withScale(x))}</text>`,
    `<text text-anchor="middle" transform="translate(18 ${(ceiling + floor) / 2}) rotate(-90)">${
      escapeXml(withScale(y))
    }</text>`,
    ...series.map((each) => renderSeries(each, x, y, names.indexOf(each.name))),
    ...series.map((each, row) =>
      legendLine(each.name, names.indexOf(each.name), right + 20, ceiling + 8 + row * LEGEND_LINE)
    ),
  ].join("\n");
}

function withScale({ title, log }: Axis): string {
  return log ? `${title} (log scale)` : title;
}

function yTick(axis: Axis, tick: number, left: number, right: number): string {
  const at = round(axis.place(tick));
  return `<path class="grid" d="M${left} ${at}H${right}"/><text text-anchor="end" x="${left - 8}" y="${at + 4}">${
    axis.label(tick)
  }</text>`;
}

function xTick(axis: Axis, tick: number, ceiling: number, floor: number): string {
  const at = round(axis.place(tick));
  return `<path class="grid" d="M${at} ${ceiling}V${floor}"/><text text-anchor="middle" x="${at}" y="${floor + 20}">${
    axis.label(tick)
  }</text>`;
}

function renderSeries({ points }: Series, x: Axis, y: Axis, index: number): string {
  const sorted = points.toSorted((a, b) => a.x - b.x);
  const [colour, dash] = look(index);
  const path = sorted.map((point, at) => `${at === 0 ? "M" : "L"}${round(x.place(point.x))} ${round(y.place(point.y))}`)
    .join("");
  const marks = sorted.map((point) => {
    const [px, py] = [round(x.place(point.x)), round(y.place(point.y))];
    const bar = point.low === undefined || point.high === undefined
      ? ""
      : `<path class="${colour} bar" d="M${px} ${round(y.place(point.low))}V${round(y.place(point.high))}"/>`;
    return `${bar}<circle class="${colour}" cx="${px}" cy="${py}" r="3.5"/>`;
  });
  return `<path class="${colour} line" style="fill:none" stroke-dasharray="${dash}" d="${path}"/>${marks.join("")}`;
}

function legendLine(name: string, index: number, left: number, at: number): string {
  const [colour, dash] = look(index);
  return `<path class="${colour} line" style="fill:none" stroke-dasharray="${dash}" d="M${left} ${at}h26"/>` +
    `<circle class="${colour}" cx="${left + 13}" cy="${at}" r="3.5"/><text x="${left + 34}" y="${at + 4}">${
      escapeXml(name)
    }</text>`;
}

/** Colour class and dash of the n-th name; the lists have different lengths, so pairs repeat late. */
function look(index: number): [colour: string, dash: string] {
  return [`c${index % LIGHT.length}`, DASHES[index % DASHES.length] ?? "none"];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escapeXml(text: string): string {
  return text.replace(/[<>&"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
