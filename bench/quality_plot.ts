/** Rows of quality as a plot: one line per scorer against the budget, dense as a horizontal line; KL also against the time of a step. */
import { short } from "./columns.ts";
import type { Panel, Plot, Point, Series } from "./plot.ts";
import type { Provenance, Row } from "./row.ts";

const KL = "KL to dense, nats per token (0: equal)";

/** One panel per task and length: the score of answers, or the KL of prose, which has a second panel against time. */
export function qualityPlot(rows: readonly Row[], { model, version, commit, device, date }: Provenance): Plot {
  const panels = Map.groupBy(
    rows,
    ({ task, context_tokens: length }) => `${task}, documents of ${length?.toLocaleString("en-US")} tokens`,
  );
  return {
    title: `Quality of ${model ?? "a model"} through sparse decode`,
    footer: `pagesift ${version}, commit ${commit}, ${device}, ${date}; bars are 95 % intervals`,
    panels: [...panels].flatMap(([title, each]) =>
      each.some(({ kl }) => kl !== undefined) ? prosePanels(title, each) : [scorePanel(title, each)]
    ),
  };
}

function scorePanel(title: string, rows: readonly Row[]): Panel {
  const budgets = [...new Set(rows.flatMap(({ budget_tokens: budget }) => budget ?? []))];
  const series = seriesOf(
    rows,
    (row) => row.arm === "dense" ? budgets.map((x) => scorePoint(row, x)) : [scorePoint(row, row.budget_tokens)],
  );
  return { title, xTitle: "budget, tokens", yTitle: "score, %", series };
}

/** What a budget loses, and what it costs: the budgets of a scorer are the points of a line. The oracle's time includes its search. */
function prosePanels(title: string, rows: readonly Row[]): Panel[] {
  const [sparse, both] = [rows.filter(({ arm }) => arm === "sparse"), rows.filter(({ arm }) => arm !== "dense")];
  const dense = rows.find(({ arm }) => arm === "dense")?.median_us ?? NaN;
  return [{
    title,
    ...{ xTitle: "budget, tokens", yTitle: KL },
    series: seriesOf(both, ({ budget_tokens: x = 0, kl: y = 0 }) => [{ x, y }]),
  }, {
    title: `${title}; a dense step takes ${short(dense / 1000)} ms`,
    ...{ xTitle: "time of a step, ms", measuredX: true, yTitle: KL },
    series: seriesOf(sparse, ({ median_us: us, kl: y = 0 }) => [{ x: us / 1000, y }]),
  }];
}

function seriesOf(rows: readonly Row[], pointsOf: (row: Row) => Point[]): Series[] {
  const severalPages = new Set(rows.map(({ page_size: page }) => page)).size > 1;
  const lines = Map.groupBy(
    rows,
    ({ arm, scorer = arm, page_size: page }) => severalPages ? `${scorer}, page ${page}` : scorer,
  );
  return [...lines].map(([name, each]) => ({ name, points: each.flatMap(pointsOf) }));
}

/** Scores that are all or nothing have an interval. */
function scorePoint({ score = 0, accuracy, accuracy_low: low, accuracy_high: high }: Row, x = 0): Point {
  const percent = (share: number | undefined): number => 100 * (share ?? 0);
  return { x, y: percent(score), ...score === accuracy && { low: percent(low), high: percent(high) } };
}
