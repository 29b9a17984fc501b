/** Rows of quality as a plot: one line per scorer against the budget, dense as a horizontal line. */
import type { Panel, Plot, Point, Series } from "./plot.ts";
import type { Provenance, Row } from "./row.ts";

/** Mean score of answers, KL to dense for prose; one panel per task and length. */
export function qualityPlot(rows: readonly Row[], { model, version, commit, device, date }: Provenance): Plot {
  const panels = Map.groupBy(
    rows,
    ({ task, context_tokens: length }) => `${task}, documents of ${length?.toLocaleString("en-US")} tokens`,
  );
  return {
    title: `Quality of ${model ?? "a model"} through sparse decode`,
    footer: `pagesift ${version}, commit ${commit}, ${device}, ${date}; bars are 95 % intervals`,
    panels: [...panels].map(([title, each]): Panel => {
      const prose = each.some(({ kl }) => kl !== undefined);
      return {
        title,
        xTitle: "budget, tokens",
        yTitle: prose ? "KL to dense, nats per token (0: equal)" : "score, %",
        series: seriesOf(each, prose),
      };
    }),
  };
}

function seriesOf(rows: readonly Row[], prose: boolean): Series[] {
  const budgets = [...new Set(rows.flatMap(({ budget_tokens: budget }) => budget ?? []))];
  const sparse = Map.groupBy(rows.filter(({ arm }) => arm !== "dense"), ({ arm, scorer }) => scorer ?? arm);
  const dense = prose ? [] : rows.filter(({ arm }) => arm === "dense");
  return [
    ...dense.map((row) => ({ name: "dense", points: budgets.map((x) => ({ ...pointOf(row, prose), x })) })),
    ...[...sparse].map(([name, each]) => ({ name, points: each.map((row) => pointOf(row, prose)) })),
  ];
}

/** Scores that are all or nothing have an interval. */
function pointOf(
  { budget_tokens: x = 0, kl, score = 0, accuracy, accuracy_low: low, accuracy_high: high }: Row,
  prose: boolean,
): Point {
  if (prose) return { x, y: kl ?? 0 };
  const percent = (share: number | undefined): number => 100 * (share ?? 0);
  return { x, y: percent(score), ...score === accuracy && { low: percent(low), high: percent(high) } };
}
