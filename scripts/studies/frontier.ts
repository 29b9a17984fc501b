/**
 * Joins what budgets lose and what they cost: a table of KL and time per page size and budget, and a plot of one against the other.
 *
 *     pagesift bench quality -m MODEL --text BOOK -l 8k --task prose --page-size 8,16,32 --budget 256,512 -o jsonl >> kl.jsonl
 *     pagesift bench generate -m MODEL -p 0 -n 16 -d 8k --page-size 8,16,32 --budget 256,512 --scorer diag -o jsonl > cpu.jsonl
 *     deno run -A scripts/studies/frontier.ts kl.jsonl --speed "2 CPU cores=cpu.jsonl" [--speed …] [--plot FILE.svg --title TEXT --footer TEXT]
 *
 * KL is the mean over all sparse rows of a page size and budget, whatever their text. Times are shares of the dense row of the same run and page
 * size, which alternated with them; the time of a setting that was measured in several runs is the median of its shares.
 */
import { parseArgs } from "@std/cli/parse-args";
import { short } from "../../bench/columns.ts";
import { type Panel, renderPlot } from "../../bench/plot.ts";
import type { Row } from "../../bench/row.ts";
import { mean, median } from "../../bench/statistics.ts";
import { print } from "../output.ts";

/** Page size and budget. */
type Setting = `${number} ${number}`;

/** One device, context and batch: time over dense by setting. */
interface Speed {
  title: string;
  shares: Map<Setting, number>;
}

const flags = parseArgs(Deno.args, { string: ["speed", "title", "footer", "plot"], collect: ["speed"] });

function readRows(file: string): Row[] {
  return Deno.readTextFileSync(file).split("\n").filter((line) => line.trim() !== "").map((line) => JSON.parse(line));
}

function settingOf({ page_size: page = 0, budget_tokens: budget = 0 }: Row): Setting {
  return `${page} ${budget}`;
}

function speedsOf(argument: string): Speed[] {
  const [name = "", file = ""] = argument.split(/=(.*)/);
  const groups = Map.groupBy(
    readRows(file),
    ({ batch, context_tokens: context, depth_tokens: tokens = context }) => `${name}, ${tokens} tokens, batch ${batch}`,
  );
  return [...groups].map(([title, rows]) => {
    const dense = median(rows.filter(({ arm }) => arm === "dense").map(({ median_us: us }) => us));
    const sparse = Map.groupBy(rows.filter(({ arm }) => arm === "sparse"), settingOf);
    return {
      title: `${title}; dense: ${short(dense / 1000)} ms`,
      shares: new Map(
        [...sparse].map(([setting, each]) => [setting, median(each.map((row) => 1 / (row.of_dense ?? NaN)))]),
      ),
    };
  });
}

const quality = Map.groupBy(flags._.map(String).flatMap(readRows).filter(({ arm }) => arm === "sparse"), settingOf);
const kl = new Map([...quality].map(([setting, rows]) => [setting, mean(rows.map((row) => row.kl ?? NaN))]));
const speeds = [flags.speed ?? []].flat().map(String).flatMap(speedsOf);

function panelOf({ title, shares }: Speed): Panel {
  const pages = Map.groupBy(kl.keys(), (setting) => setting.split(" ")[0]);
  return {
    ...{ title, xTitle: "time, % of dense", measuredX: true, yTitle: "KL to dense, nats per token" },
    series: [...pages].map(([page, settings]) => ({
      name: `page ${page}`,
      points: settings.flatMap((setting) => {
        const [share, y] = [shares.get(setting), kl.get(setting)];
        return share === undefined || y === undefined ? [] : [{ x: 100 * share, y }];
      }),
    })),
  };
}

const titles = ["page", "budget", "KL", "same top", "mass", ...speeds.map(({ title }) => title)];
print(`| ${titles.join(" | ")} |\n|${"---|".repeat(titles.length)}`);
for (const [setting, rows] of quality) {
  const agreement = mean(rows.map((row) => row.top1_agreement ?? NaN));
  const mass = mean(rows.map((row) => row.mass_kept ?? NaN));
  const percents = [agreement, mass, ...speeds.map(({ shares }) => shares.get(setting) ?? NaN)];
  const cells = [...setting.split(" "), (kl.get(setting) ?? NaN).toFixed(4)];
  print(`| ${[...cells, ...percents.map((share) => `${(100 * share).toFixed(1)} %`)].join(" | ")} |`);
}
if (flags.plot) {
  const budgets = [...new Set([...kl.keys()].map((setting) => setting.split(" ")[1]))].join(", ");
  const footer = `${flags.footer ?? ""}; each line has budgets of ${budgets} tokens from top to bottom`;
  const title = String(flags.title ?? "Loss and cost of budgets");
  Deno.writeTextFileSync(String(flags.plot), renderPlot({ title, footer, panels: speeds.map(panelOf) }));
}
