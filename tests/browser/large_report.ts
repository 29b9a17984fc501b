/** A report of a context of 20,000 pages, and what is done to it. */
import type { Page } from "playwright-core";
import { renderHtml } from "../../inspect/html/html.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";

/** Words of the answer to choose one after the other; the last is one of those before. */
export const WORDS = [3, 9, 16, 5, 1, 12, 1];

/** Pixels per frame of a scroll. */
export const SCROLLS = { slow: 120, fast: 5000 };

let made: Promise<string> | undefined;

/** HTML of 20,000 pages, 32 layers and 16 steps; made once. */
export function largeReport(): Promise<string> {
  return made ??= makeLarge();
}

function makeLarge(): Promise<string> {
  const recording = syntheticRecording({ pages: 20_000, layers: 32, heads: 2, steps: 16, budgetPages: 64 });
  recording.text.text = recording.text.text.replace(/((?:word ){59}word) /g, "$1\n");
  return renderHtml(makeReport(recording, {}), { by: "mass", facts: [], tables: [] });
}

/** Chooses a word and forgets the page in the link. Returns how long that took, in ms. */
export function chooseWord(page: Page, word: number): Promise<number> {
  return page.evaluate(`(() => {
    const started = performance.now();
    location.hash = "";
    document.querySelectorAll("#words [role=radio]")[${word}].click();
    return performance.now() - started;
  })()`);
}

/** Scrolls the text by one frame. */
export async function scrollFrame(page: Page, pixels: number): Promise<void> {
  await page.evaluate(`new Promise((done) => {
    document.getElementById("scroller").scrollTop += ${pixels};
    requestAnimationFrame(() => requestAnimationFrame(done));
  })`);
}
