/** Cells of a comparison as rows of a Markdown table. */
import { timingOf } from "../../bench/statistics.ts";
import type { PeerArm } from "./arms.ts";
import { fastest, type Measured } from "./measure.ts";

function milliseconds({ seconds }: Measured): number {
  return timingOf(seconds).median_us / 1000;
}

/** `3.912 (3.870 to 4.020)` */
function spread({ seconds }: Measured): string {
  const { median_us, low_us = NaN, high_us = NaN } = timingOf(seconds);
  const [median, low, high] = [median_us, low_us, high_us].map((us) => (us / 1000).toFixed(2));
  return `${median} (${low} to ${high})`;
}

/** A row of the table: ours, all of llama.cpp's settings, then ratios to the fastest of them. */
export function tableLine(cell: readonly Measured[]): string {
  const peers = cell.filter(({ arm }) => arm.isPeer);
  const best = fastest(peers);
  const [dense, sparse] = ["dense", "sparse"].map((name) => cell.find(({ arm }) => arm.name === name));
  const { settings } = best;
  const what = "prompt_tokens" in settings ? `prompt ${settings.prompt_tokens}` : `depth ${settings.depth_tokens}`;
  const ratio = dense ? (milliseconds(dense) / milliseconds(best)).toFixed(2) : "";
  const gain = sparse ? `${(milliseconds(best) / milliseconds(sparse)).toFixed(2)} x` : "";
  const columns = [what, dense ? spread(dense) : "", sparse ? spread(sparse) : "", ...peers.map(spread), ratio, gain];
  return `| ${columns.join(" | ")} |`;
}

/** The header and separator lines. */
export function tableHead(arms: readonly PeerArm[]): string {
  const peers = arms.filter(({ isPeer }) => isPeer).map(({ settings }) => `llama.cpp ${settings}`);
  const columns = [
    "ms",
    "ours, dense",
    "ours, sparse",
    ...peers,
    "dense / best llama.cpp, time",
    "sparse / best llama.cpp, speed",
  ];
  return `| ${columns.join(" | ")} |\n|${"---|".repeat(columns.length)}`;
}
