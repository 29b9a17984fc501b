/**
 * How much of the HTML report exists and changes on a context of 20,000 pages: what is in view, never the whole text.
 * scripts/studies/bench_report.ts measures the time.
 */
import { assertEquals, assertLess } from "@std/assert";
import type { Page } from "playwright-core";
import { chooseWord, largeReport, scrollFrame, SCROLLS, WORDS } from "./large_report.ts";
import { browserTest, withHtml } from "./report.ts";

/** The whole text would take more than 20,000. */
const MOST_ELEMENTS = 5000;
/** On average over the words, or over the frames of a scroll. */
const MOST_WORD_CHANGES = 2500;
const MOST_FRAME_CHANGES = { slow: 100, fast: 1000 };
const FRAMES = 20;

/** Counts nodes that come or go, and attributes and texts that change, while `work` runs. */
async function countChanges(page: Page, work: () => Promise<void>): Promise<number> {
  await page.evaluate(`{
    globalThis.numChanges = 0;
    globalThis.count = (changes) => {
      for (const { addedNodes, removedNodes } of changes) numChanges += Math.max(1, addedNodes.length + removedNodes.length);
    };
    globalThis.observer = new MutationObserver(count);
    observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  }`);
  await work();
  return await page.evaluate(`(count(observer.takeRecords()), numChanges)`);
}

function countElements(page: Page): Promise<number> {
  return page.evaluate(`document.getElementsByTagName("*").length`);
}

browserTest(`a report of 20,000 pages opens with fewer than ${MOST_ELEMENTS} elements`, async () => {
  await withHtml(await largeReport(), async ({ page, complaints }) => {
    assertLess(await countElements(page), MOST_ELEMENTS);
    assertEquals(complaints, []);
  });
});

for (const how of ["slow", "fast"] as const) {
  const most = MOST_FRAME_CHANGES[how];
  browserTest(`a frame of a ${how} scroll over 20,000 pages makes fewer than ${most} changes`, async () => {
    await withHtml(await largeReport(), async ({ page }) => {
      await scrollFrame(page, SCROLLS[how]);
      const changes = await countChanges(page, async () => {
        for (let frame = 0; frame < FRAMES; frame++) await scrollFrame(page, SCROLLS[how]);
      });
      assertLess(changes / FRAMES, most);
      assertLess(await countElements(page), MOST_ELEMENTS);
    }, { fragment: "#page=0" });
  });
}

browserTest(`choosing a word of 20,000 pages and 32 layers makes fewer than ${MOST_WORD_CHANGES} changes`, async () => {
  await withHtml(await largeReport(), async ({ page }) => {
    const changes = await countChanges(page, async () => {
      for (const word of WORDS) await chooseWord(page, word);
    });
    assertLess(changes / WORDS.length, MOST_WORD_CHANGES);
    assertLess(await countElements(page), MOST_ELEMENTS);
  });
});
