/** Speed and size of the HTML report on a context of 20,000 pages. */
import { assert, assertEquals } from "@std/assert";
import type { Page } from "playwright-core";
import { renderHtml } from "../../inspect/html/html.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";
import { browserTest, withHtml } from "./report.ts";

const MOST_STEP_MS = 100;
const MOST_FRAME_MS = 16;
const MOST_OPEN_MS = 3000;
const FRAMES = 60;

let made: Promise<string> | undefined;

/** A report of 20,000 pages, 32 layers and 16 steps; made once. */
function largeReport(): Promise<string> {
  return made ??= makeLarge();
}

function makeLarge(): Promise<string> {
  const recording = syntheticRecording({ pages: 20_000, layers: 32, heads: 2, steps: 16, budgetPages: 64 });
  recording.text.text = recording.text.text.replace(/((?:word ){59}word) /g, "$1\n");
  return renderHtml(makeReport(recording, {}), { by: "mass", facts: [], tables: [] });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** Milliseconds of script that each frame of a scroll takes, `pixels` further each time. */
async function scrollFrames(page: Page, pixels: number): Promise<number[]> {
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable");
  const scriptMs = async (): Promise<number> => {
    const { metrics } = await client.send("Performance.getMetrics");
    return 1000 * metrics.find(({ name }) => name === "ScriptDuration")!.value;
  };
  const times: number[] = [];
  for (let frame = 0; frame < FRAMES; frame++) {
    const before = await scriptMs();
    await page.evaluate(`new Promise((done) => {
      document.getElementById("scroller").scrollTop += ${pixels};
      requestAnimationFrame(() => requestAnimationFrame(done));
    })`);
    times.push(await scriptMs() - before);
  }
  return times;
}

browserTest(`a report of 20,000 pages opens within ${MOST_OPEN_MS} ms`, async () => {
  await withHtml(await largeReport(), async ({ page, complaints }) => {
    const ms = await page.evaluate<number>("performance.getEntriesByName('ready')[0].startTime");
    assertEquals(complaints, []);
    assert(ms < MOST_OPEN_MS, String(ms));
  });
});

for (const [how, pixels] of [["slow", 120], ["fast", 5000]] as const) {
  browserTest(
    `a frame of a ${how} scroll over 20,000 pages takes less than ${MOST_FRAME_MS} ms of script`,
    async () => {
      await withHtml(await largeReport(), async ({ page }) => {
        const times = await scrollFrames(page, pixels);
        assert(median(times) < MOST_FRAME_MS, String(times));
      }, { fragment: "#page=0" });
    },
  );
}

browserTest(`choosing a word of 20,000 pages and 32 layers takes less than ${MOST_STEP_MS} ms`, async () => {
  await withHtml(await largeReport(), async ({ page }) => {
    const times = await page.evaluate<number[]>(`[3, 9, 16, 5, 1, 12, 1].map((word) => {
      const started = performance.now();
      location.hash = "";
      document.querySelectorAll("#words [role=radio]")[word].click();
      return performance.now() - started;
    })`);
    assert(median(times) < MOST_STEP_MS, String(times));
  });
});
