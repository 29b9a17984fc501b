/**
 * Measures the HTML report of 20,000 pages in headless Chromium: opening it, the script of a frame of a scroll, and choosing a word.
 *
 *     deno run -A scripts/studies/bench_report.ts [--rounds 5]
 */
import { parseArgs } from "@std/cli/parse-args";
import type { Page } from "playwright-core";
import { chooseWord, largeReport, scrollFrame, SCROLLS, WORDS } from "../../tests/browser/large_report.ts";
import { withHtml } from "../../tests/browser/report.ts";
import { findChromium } from "../gate/chromium.ts";
import { log, print } from "../output.ts";
import { commit, median } from "./measure.ts";

const FRAMES = 60;

/** Milliseconds of script that each frame of a scroll takes. */
async function scrollFrames(page: Page, pixels: number): Promise<number[]> {
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable");
  const scriptMs = async (): Promise<number> => {
    const { metrics } = await client.send("Performance.getMetrics");
    return 1000 * (metrics.find(({ name }) => name === "ScriptDuration")?.value ?? NaN);
  };
  const times: number[] = [];
  for (let frame = 0; frame < FRAMES; frame++) {
    const before = await scriptMs();
    await scrollFrame(page, pixels);
    times.push(await scriptMs() - before);
  }
  return times;
}

async function main(): Promise<void> {
  const { rounds = 5 } = parseArgs(Deno.args, { string: ["rounds"] });
  const times: Record<string, number[]> = {};
  const add = (what: string, values: readonly number[]): void => void (times[what] ??= []).push(...values);
  const html = await largeReport();
  for (let round = 0; round < Number(rounds); round++) {
    log(`Round ${round + 1} of ${rounds}`);
    await withHtml(html, async ({ page }) => {
      add("open", [await page.evaluate<number>("performance.getEntriesByName('ready')[0].startTime")]);
      for (const word of WORDS) add("choose a word", [await chooseWord(page, word)]);
    });
    for (const [how, pixels] of Object.entries(SCROLLS)) {
      await withHtml(html, async ({ page }) => add(`frame, ${how} scroll`, await scrollFrames(page, pixels)), {
        fragment: "#page=0",
      });
    }
  }
  print(`commit ${await commit()}, report of ${(html.length / 1e6).toFixed(1)} MB, medians of ${rounds} rounds:`);
  for (const [what, values] of Object.entries(times)) print(`${what.padEnd(18)} ${median(values).toFixed(1)} ms`);
}

if (import.meta.main) {
  if (findChromium() === undefined) {
    log("bench_report: Chromium is not installed; install Debian's package chromium, or name one in $CHROMIUM");
    Deno.exit(1);
  }
  await main();
}
