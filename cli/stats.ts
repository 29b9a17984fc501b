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
      `${plural(promptTokens, "token")}${reused}, prefill ${formatRate(prefillTokens, prefillSeconds)}, ${firstToken}` +
      promptPages(stats),
    ],
    ...savedLine(stats.promptCache),
    ["answer", `${plural(newTokens, "token")}, decode ${formatRate(decodeTokens, decodeSeconds)}`],
    ["sparse", sparseLine(stats)],
    ...verifyLines(stats.verification),
    ["memory", `peak KV cache ${bytes(stats.peakKvBytes)}, weights ${bytes(stats.weightBytes)}`],
    ["context", `${formatCount(stats.contextTokens)} of ${plural(stats.maxContext, "token")}`],
  ];
}

/** What tiles of the prompt read where they selected. */
function promptPages({ promptPagesRead, promptPagesDense }: EngineStats): string {
  if (promptPagesDense === 0) return "";
  const share = formatTenths(100 * promptPagesRead / promptPagesDense);
  return `, tiles read ${formatCount(promptPagesRead)} of ${formatCount(promptPagesDense)} KV pages (${share} %)`;
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
  return `${steps}${autoRule(stats)}, ${pages}, ${amounts}`;
}

/** Why mode `auto` selected at no step. */
function autoRule({ selectsFromTokens: from, selectedSteps, maxContext }: EngineStats): string {
  if (from === undefined || selectedSteps > 0) return "";
  return from === null
    ? `, because selecting saves less than 10 % of a step at every length up to ${
      formatCount(maxContext)
    } tokens (--sparse auto)`
    : `, because selecting saves 10 % of a step from ${formatCount(from)} tokens on (--sparse auto)`;
}

/** How sparse decoding compares with dense decoding; no line unless the run verified. */
function verifyLines(found: EngineStats["verification"]): [string, string][] {
  if (found === undefined) return [];
  const { every, steps, agreed, meanKl = 0, maxKl = 0, firstDifference, skipped, limit } = found;
  const due = every === 1 ? "every step" : `1 of ${formatCount(every)} steps`;
  const notVerified = skipped > 0
    ? `; ${plural(skipped, "step")} not verified, because all pages were read anyway`
    : "";
  if (steps === 0) return [["verify", `${due}: none verified${notVerified}`]];
  const share = `${formatCount(agreed)} of ${formatCount(steps)} (${formatTenths(100 * agreed / steps)} %)`;
  const difference = firstDifference === undefined ? "" : `, first different at step ${formatCount(firstDifference)}`;
  const kl = `KL to dense ${meanKl.toFixed(4)} nats on average, ${maxKl.toFixed(4)} at most`;
  const took = `took ${formatSeconds(found.seconds)}`;
  return [
    ["verify", `${due}: same most likely token in ${share}${difference}, ${kl}, ${took}${notVerified}`],
    ...limit === undefined ? [] : [limitLine(limit, found.overLimit, found.denseSteps)],
  ];
}

function limitLine(limit: number, overLimit: number, denseSteps: number): [string, string] {
  const exceeded = `KL above ${limit} at ${plural(overLimit, "verified step")}`;
  return ["limit", `${exceeded}, ${plural(denseSteps, "step")} read all pages because of it`];
}

function bytes(count: number): string {
  return format(count, { binary: true, maximumFractionDigits: 1 });
}
