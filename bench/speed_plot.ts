/** Rows of speed as a plot: one line per arm, one panel per batch and other settings that differ. */
import type { Panel, Plot, Point, Series } from "./plot.ts";
import type { Provenance, Row } from "./row.ts";

const PARTS = ["append", "score", "select", "attend"];

/**
 * Time of attention against context, or tokens per second against depth. Parts of sparse attention appear only in
 * the table.
 */
export function speedPlot(rows: readonly Row[], provenance: Provenance): Plot {
  const whole = rows.filter(({ arm, program }) => program !== undefined || !PARTS.includes(arm));
  const panels = Map.groupBy(whole, panelTitle);
  const attention = rows[0]?.subject === "attention";
  const { device, commit, date } = provenance;
  return {
    title: attention ? "Decode attention of one layer" : `Speed of ${provenance.model ?? "a model"}`,
    footer:
      `pagesift ${provenance.version}, commit ${commit}, ${device}, ${date}; bars from the 10th to the 90th percentile`,
    panels: [...panels].map(([title, each]): Panel => ({
      title,
      xTitle: attention ? "context, tokens" : "tokens in the cache",
      yTitle: attention ? "time, us (lower is faster)" : "tokens/s",
      series: seriesOf(each, attention),
    })),
  };
}

/** The settings that the rows of a panel share. */
function panelTitle(row: Row): string {
  const { batch, query_heads: query, kv_heads: kv, head_dim: dim, prompt_tokens: prompt, decode_tokens: decode } = row;
  if (query !== undefined) return `batch ${batch}, ${query}/${kv} heads of ${dim}`;
  return prompt !== undefined ? `prompts of ${prompt} tokens` : `decoding ${decode} tokens, batch ${batch}`;
}

function seriesOf(rows: readonly Row[], attention: boolean): Series[] {
  const several = new Set(rows.flatMap(({ page_size: page }) => page ?? [])).size > 1;
  return [...Map.groupBy(rows, (row) => seriesName(row, several))].map(([name, each]) => ({
    name,
    points: each.map((row) => attention ? timePoint(row) : speedPoint(row)),
  }));
}

function seriesName({ arm, scorer, budget_tokens: budget, page_size: page }: Row, several: boolean): string {
  return [arm, scorer, budget, several && page !== undefined ? `page ${page}` : undefined]
    .filter((part) => part !== undefined).join(" ");
}

function timePoint({ context_tokens: x = 0, median_us: y, low_us: low, high_us: high }: Row): Point {
  return { x, y, low, high };
}

function speedPoint(
  { depth_tokens: x = 0, tokens_per_s: y = 0, median_us: us, low_us: low, high_us: high }: Row,
): Point {
  const at = (time: number | undefined): number | undefined => time === undefined ? undefined : y * us / time;
  return { x, y, low: at(high), high: at(low) };
}
