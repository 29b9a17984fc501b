import { assertEquals } from "@std/assert";
import { qualityPlot } from "../../bench/quality_plot.ts";
import type { Row } from "../../bench/row.ts";
import { provenance } from "./tiny.ts";

function proseRow(changed: Partial<Row>): Row {
  return {
    subject: "quality",
    arm: "sparse",
    batch: 1,
    task: "prose",
    context_tokens: 4096,
    median_us: 2000,
    ...changed,
  };
}

const prose = [8, 16].flatMap((page_size) => [
  proseRow({ arm: "dense", page_size, median_us: 9000 }),
  proseRow({ arm: "oracle", page_size, budget_tokens: 256, kl: 0.01 }),
  proseRow({ scorer: "diag:2", page_size, budget_tokens: 256, kl: 0.04 }),
  proseRow({ scorer: "diag:2", page_size, budget_tokens: 512, kl: 0.02, median_us: 3000 }),
]);

Deno.test("qualityPlot() draws the KL of prose against the budget and, without the oracle, against time", () => {
  const [budget, time] = qualityPlot(prose.filter(({ page_size: page }) => page === 8), provenance).panels;
  assertEquals(budget?.series.map(({ name }) => name), ["oracle", "diag:2"]);
  assertEquals(time?.series, [{ name: "diag:2", points: [{ x: 2, y: 0.04 }, { x: 3, y: 0.02 }] }]);
});

Deno.test("qualityPlot() draws a line for each page size", () => {
  const [, time] = qualityPlot(prose, provenance).panels;
  assertEquals(time?.series.map(({ name }) => name), ["diag:2, page 8", "diag:2, page 16"]);
});

Deno.test("qualityPlot() draws the score of answers against the budget, dense at every budget", () => {
  const needle = { task: "needle", score: 0.5, accuracy: 0.5, accuracy_low: 0.25, accuracy_high: 0.75 };
  const rows = [undefined, 256, 512].map((budget_tokens) =>
    proseRow({
      ...needle,
      arm: budget_tokens === undefined ? "dense" : "sparse",
      ...budget_tokens && { budget_tokens },
    })
  );
  const { panels } = qualityPlot(rows, provenance);
  const points = [256, 512].map((x) => ({ x, y: 50, low: 25, high: 75 }));
  assertEquals(panels.map(({ series }) => series), [[{ name: "dense", points }, { name: "sparse", points }]]);
});
