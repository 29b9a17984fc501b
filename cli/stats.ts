import { format } from "@std/fmt/bytes";
import type { EngineStats } from "../engine/types.ts";
import { formatCount, formatRate, formatSeconds, formatTenths, plural } from "../engine/text/format.ts";

/** Labelled lines of a run's stats for stderr; `newTokens` includes the token that the prefill produces. */
export function statsLines(stats: EngineStats, model: string, newTokens: number): [label: string, text: string][] {
  const { promptTokens, prefillTokens, prefillSeconds, decodeTokens, decodeSeconds, firstTokenSeconds } = stats;
  const firstToken = `first token after ${formatSeconds(firstTokenSeconds)}`;
  const reused = stats.reusedTokens > 0 ? `, ${formatCount(stats.reusedTokens)} of them reused` : "";
  return [
    ["model", `${model} on ${stats.device}`],
    [
      "prompt",
      `${plural(promptTokens, "token")}${reused}, prefill ${formatRate(prefillTokens, prefillSeconds)}, ${firstToken}`,
    ],
    ...savedLine(stats.promptCache),
    ["answer", `${plural(newTokens, "token")}, decode ${formatRate(decodeTokens, decodeSeconds)}`],
    ["sparse", sparseLine(stats)],
    ["memory", `peak KV cache ${bytes(stats.peakKvBytes)}, weights ${bytes(stats.weightBytes)}`],
    ["context", `${formatCount(stats.contextTokens)} of ${plural(stats.maxContext, "token")}`],
  ];
}

/** What the prompt cache loaded and saved; no line without one. */
function savedLine(saved: EngineStats["promptCache"]): [string, string][] {
  if (saved === undefined) return [];
  const { loadedTokens, loadedBytes, loadSeconds, savedTokens, savedBytes, saveSeconds } = saved;
  const loaded = `loaded ${plural(loadedTokens, "token")}, ${bytes(loadedBytes)}, in ${formatSeconds(loadSeconds)}`;
  const wrote = `saved ${plural(savedTokens, "token")}, ${bytes(savedBytes)}, ${
    formatSeconds(saveSeconds)
  } after the answer`;
  return [["saved", `${loaded}; ${wrote}`]];
}

/** The kernels' own counters, so that a run shows whether selection was active. */
function sparseLine(stats: EngineStats): string {
  const steps = `selected in ${formatCount(stats.selectedSteps)} of ${plural(stats.decodeSteps, "step")}`;
  const share = stats.pagesDense > 0 ? ` (${formatTenths(100 * stats.pagesRead / stats.pagesDense)} %)` : "";
  const pages = `read ${formatCount(stats.pagesRead)} of ${formatCount(stats.pagesDense)} KV pages${share}`;
  const amounts = `${bytes(stats.bytesRead)} of ${bytes(stats.bytesDense)} and ${
    bytes(stats.statisticsBytes)
  } of statistics`;
  const from = stats.selectsFromTokens;
  const rule = from === undefined || stats.selectedSteps > 0
    ? ""
    : `, because selecting saves 10 % of a step from ${formatCount(from)} tokens on (--sparse auto)`;
  return `${steps}${rule}, ${pages}, ${amounts}`;
}

function bytes(count: number): string {
  return format(count, { binary: true, maximumFractionDigits: 1 });
}
