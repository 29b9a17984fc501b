/**
 * Joins what budgets lose and what they cost: a table of KL and time per page size and budget, and a plot of one against the other.
 *
 *     pagesift bench quality -m MODEL --text BOOK -l 8k --task prose --page-size 8,16,32 --budget 256,512 -o jsonl >> kl.jsonl
 *     pagesift bench generate -m MODEL -p 0 -n 16 -d 8k --page-size 8,16,32 --budget 256,512 --scorer diag -o jsonl > cpu.jsonl
 *     deno run -A scripts/studies/frontier.ts kl.jsonl --speed "2 CPU cores=cpu.jsonl" [--speed …] [--title TEXT] [--plot FILE.svg]
 *
 * KL is the mean over all sparse rows of a page size and budget, whatever their text. Times are shares of the dense step, or dense attention, with
 * the same pages that alternated with them.
 */
import { parseArgs } from "@std/cli/parse-args";
import { short } from "../../bench/columns.ts";
import { type Panel, renderPlot } from "../../bench/plot.ts";
import type { Row } from "../../bench/row.ts";
import { mean } from "../../bench/statistics.ts";
import { print } from "../output.ts";
import { commit } from "./measure.ts";

/** Page size and budget. */
type Setting = `${number} ${number}`;

/** One device, context and batch: time over dense by setting. */
interface Speed {
  title: string;
  shares: Map<Setting, number>;
  dense: string;
}

const flags = parseArgs(Deno.args, { string: ["speed", "title", "plot"], collect: ["speed"] });

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
    const sparse = rows.filter(({ arm }) => arm === "sparse");
    const dense = rows.filter(({ arm }) => arm === "dense").map(({ median_us: us }) => us / 1000);
    return {
      title,
      shares: new Map(sparse.map((row) => [settingOf(row), 1 / (row.of_dense ?? NaN)])),
      dense: `${short(Math.min(...dense))} to ${short(Math.max(...dense))} ms`,
    };
  });
}

const quality = Map.groupBy(flags._.map(String).flatMap(readRows).filter(({ arm }) => arm === "sparse"), settingOf);
const kl = new Map([...quality].map(([setting, rows]) => [setting, mean(rows.map((row) => row.kl ?? NaN))]));
const speeds = [flags.speed ?? []].flat().map(String).flatMap(speedsOf);

function panelOf({ title, shares, dense }: Speed): Panel {
  const pages = Map.groupBy(kl.keys(), (setting) => setting.split(" ")[0]);
  return {
    title: `${title}; dense: ${dense}`,
    ...{ xTitle: "time, % of dense", measuredX: true, yTitle: "KL to dense, nats per token" },
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
for (const { title, dense } of speeds) print(`${title}: dense ${dense}`);
if (flags.plot) {
  const footer = `commit ${await commit()}; each line has budgets of ${
    [...new Set([...kl.keys()].map((setting) => setting.split(" ")[1]))].join(", ")
  } tokens from left to right`;
  Deno.writeTextFileSync(
    String(flags.plot),
    renderPlot({ title: flags.title?.toString() ?? "Loss and cost of budgets", footer, panels: speeds.map(panelOf) }),
  );
}
