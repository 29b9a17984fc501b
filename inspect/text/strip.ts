import { forcedKind } from "../recording.ts";
import type { Order, Report } from "../report.ts";
import type { Paint } from "./paint.ts";

const BLOCKS = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"] as const;
/** Colors of the 256-color palette from cold to hot, one per block. */
const HEAT = [0, 24, 31, 37, 71, 142, 178, 208, 196] as const;
const SINK_COLOR = 45;
const RECENT_COLOR = 141;
/** Decades that the blocks span. */
const DECADES = 3;

/** The whole context as one line of blocks, and a line below that marks pages that are always read. */
export function stripLines(
  { recording: { facts }, pages }: Report,
  by: Order,
  width: number,
  paint: Paint,
): [string, string] {
  const values = by === "missed" ? pages.lost : by === "mass" ? pages.mass : pages[by];
  const cells = Math.min(width, facts.pages);
  const bins = Array.from({ length: cells }, (_, cell) => binOf(cell, cells, facts.pages));
  const kinds = bins.map(({ first, last }) => {
    if (facts.sinkPages > 0 && forcedKind(facts, first) === "sink") return "sink";
    return forcedKind(facts, last) === "recent" ? "recent" : "free";
  });
  const sums = bins.map(({ first, last }) => peak(values, first, last, by === "score"));
  const top = Math.max(...sums.filter((_, cell) => kinds[cell] === "free"), 0);
  const heights = sums.map((sum) => heightOf(sum, top, by === "score"));
  const blocks = heights.map((height, cell) => {
    const color = kinds[cell] === "sink" ? SINK_COLOR : kinds[cell] === "recent" ? RECENT_COLOR : HEAT[height]!;
    return paint.color(color, BLOCKS[height]!);
  });
  const marks = kinds.map((kind) => kind === "sink" ? "s" : kind === "recent" ? "r" : " ").join("");
  return [blocks.join(""), marks.trimEnd()];
}

function binOf(cell: number, cells: number, pages: number): { first: number; last: number } {
  const first = Math.floor(cell * pages / cells);
  return { first, last: Math.max(first, Math.floor((cell + 1) * pages / cells) - 1) };
}

/** The sum of shares and counts, the best of scores. */
function peak(values: ArrayLike<number>, first: number, last: number, isScore: boolean): number {
  let sum = isScore ? -Infinity : 0;
  for (let page = first; page <= last; page++) sum = isScore ? Math.max(sum, values[page]!) : sum + values[page]!;
  return sum;
}

/** Scores have a linear scale, everything else a logarithmic one of three decades. Pages that are always read may exceed it. */
function heightOf(value: number, top: number, isScore: boolean): number {
  const most = BLOCKS.length - 1;
  if (value <= 0) return 0;
  if (top <= 0) return most;
  const share = isScore ? value / top : 1 + Math.log10(value / top) / DECADES;
  return share <= 0 ? 1 : Math.min(most, Math.max(1, Math.ceil(share * most)));
}
