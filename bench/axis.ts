/** One axis of a plot: maps numbers to pixels and places ticks. */

/** A range of numbers mapped to a range of pixels. */
export interface Axis {
  title: string;
  log: boolean;
  /** Values that are labelled. */
  ticks: readonly number[];
  place: (value: number) => number;
  label: (value: number) => string;
}

/**
 * An axis is logarithmic if the largest value is at least this many times the smallest; token lists are mostly
 * powers of two.
 */
const LOG_RATIO = { tokens: 4, values: 8 } as const;
const MOST_TICKS = 8;

/** An axis of token counts, with ticks at the measured values. */
export function tokenAxis(title: string, values: readonly number[], from: number, to: number): Axis {
  const sorted = [...new Set(values)].sort((a, b) => a - b);
  const [low, high] = [sorted[0] ?? 1, sorted.at(-1) ?? 1];
  const log = low > 0 && high / low >= LOG_RATIO.tokens;
  const place = placer(log, low === high ? [low * 0.5, low * 1.5 || 1] : [low, high], from, to);
  return { title, log, ticks: spaced(sorted, place), place, label: tokenLabel };
}

/** An axis of measured numbers; starts at zero if linear. */
export function valueAxis(title: string, values: readonly number[], from: number, to: number): Axis {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high / low >= LOG_RATIO.values;
  const ticks = log ? logTicks(low, high) : linearTicks(high);
  const [first = 0, last = 1] = [ticks[0], ticks.at(-1)];
  return { title, log, ticks, place: placer(log, [first, last], from, to), label: numberLabel };
}

/** 32768 to `32k`. */
export function tokenLabel(tokens: number): string {
  if (tokens >= 2 ** 20 && tokens % 2 ** 20 === 0) return `${tokens / 2 ** 20}m`;
  return tokens >= 1024 && tokens % 1024 === 0 ? `${tokens / 1024}k` : String(tokens);
}

function numberLabel(value: number): string {
  return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

function placer(log: boolean, [low, high]: readonly [number, number], from: number, to: number): Axis["place"] {
  const scale = (value: number): number => log ? Math.log(value) : value;
  const span = scale(high) - scale(low) || 1;
  return (value) => from + (scale(value) - scale(low)) / span * (to - from);
}

/** Values whose labels do not overlap: at least 44 pixels apart. */
function spaced(values: readonly number[], place: Axis["place"]): number[] {
  const labelled: number[] = [];
  for (const value of values) {
    const last = labelled.at(-1);
    if (last === undefined || Math.abs(place(value) - place(last)) >= 44) labelled.push(value);
  }
  return labelled;
}

/** 1, 2 and 5 times the powers of ten that enclose the values; only the powers if there are many. */
function logTicks(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index));
  const steps = powers.length > 4 ? [1] : [1, 2, 5];
  const all = powers.flatMap((power) => steps.map((step) => step * power));
  const [below, above] = [all.findLast((tick) => tick <= low) ?? low, all.find((tick) => tick >= high) ?? high];
  return all.filter((tick) => tick >= below && tick <= above);
}

function linearTicks(high: number): number[] {
  const top = high > 0 ? high : 1;
  const rough = top / (MOST_TICKS - 2);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const count = Math.ceil(top / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}
