/** The HTML report of inspect-pages in a real browser. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { renderHtml } from "../../inspect/html/html.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";
import { browserTest, clickAt, MARKUP, textOf, withHtml, withReport } from "./report.ts";

const MOST_STEP_MS = 100;

browserTest("the report opens without a complaint of the browser and without a request", async () => {
  await withReport(async ({ page, complaints }) => {
    await clickAt(page, "whole", 0.5, 0.5);
    assertEquals(complaints, []);
    assertEquals(await page.title(), "Pagesift: which pages mattered");
  });
});

browserTest("a click on the map shows the text of the page, file and line", async () => {
  await withReport(async ({ page }) => {
    await clickAt(page, "whole", 0.01, 0.5);
    assertMatch(await textOf(page, "panel"), /^Page \d+a\.txt:1, tokens /);
    const marked = await page.locator("#panel mark").textContent() ?? "";
    assert(marked.length > 0 && MARKUP.repeat(2).includes(marked), marked);
  });
});

browserTest("markup in the prompt stays text", async () => {
  await withReport(async ({ page }) => {
    await clickAt(page, "whole", 0.05, 0.5);
    assertStringIncludes((await textOf(page, "panel")).replaceAll(/\s/g, ""), "</script><script>globalThis.ran");
    assertEquals(await page.evaluate("globalThis.ran"), undefined);
    const elements = "[document.scripts.length, document.images.length, document.querySelectorAll('b').length]";
    assertEquals(await page.evaluate(elements), [2, 0, 0]);
  });
});

browserTest("the pointer over the map shows page, layer and text", async () => {
  await withReport(async ({ page }) => {
    await page.hover("#zoom", { position: { x: 20, y: 20 } });
    assertMatch(await textOf(page, "tip"), /^Page \d+, layer \d, .*mass .*\. \S/);
    assertEquals(await page.locator("#tip").isVisible(), true);
  });
});

browserTest("the step slider shows one step", async () => {
  await withReport(async ({ page }) => {
    const slider = page.getByRole("slider", { name: "Step" });
    const all = await textOf(page, "top");
    await slider.focus();
    await page.keyboard.press("ArrowRight");
    assertEquals(await textOf(page, "step-name"), "1 of 5");
    assert(all !== await textOf(page, "top"));
    await page.keyboard.press("Home");
    assertEquals([await textOf(page, "step-name"), await textOf(page, "top")], ["all 5", all]);
  });
});

browserTest("the keyboard moves over the map, and what is reached is told to a screen reader", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("application", { name: "All pages" }).focus();
    await page.keyboard.press("Home");
    assertMatch(await textOf(page, "live"), /^Page 0, layer \d, .*always read \(sink\)/);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("PageDown");
    assertMatch(await textOf(page, "live"), /^Page 33, /);
    assertEquals(await page.locator("#live").getAttribute("aria-live"), "polite");
  });
});

browserTest("every page of the missed list can be gone to, in the layer that missed it", async () => {
  await withReport(async ({ page }) => {
    const button = page.locator("#missed button").first();
    const wanted = await button.textContent();
    await button.click();
    assertEquals(await page.locator("#page-title").textContent(), `Page ${wanted}`);
    const layer = await page.locator("#missed tbody tr").first().locator("td").nth(1).textContent();
    assertEquals(await page.locator("#panel .chosen td").first().textContent(), layer);
  });
});

browserTest("the report shows scorers, masked pages and files", async () => {
  await withReport(async ({ page }) => {
    const captions = await page.locator("#tables caption").allTextContents();
    assertEquals(captions, ["By file", "Scorers on the same steps", "Log-probability of the answer with pages masked"]);
  });
});

browserTest("choosing another measure orders pages by it", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("combobox", { name: "Show" }).selectOption("missed");
    assertStringIncludes(await textOf(page, "top"), "Pages by missed");
  });
});

browserTest("the report is dark where the reader's system is", async () => {
  const brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]";
  const corner = "[...document.getElementById('whole').getContext('2d').getImageData(200, 4, 1, 1).data].slice(0, 3)";
  const colors: unknown[] = [];
  for (const colorScheme of ["light", "dark"] as const) {
    await withReport(async ({ page }) => {
      assertEquals(await page.evaluate(`${brightness} > 128`), colorScheme === "light");
      colors.push(await page.evaluate(corner));
    }, { colorScheme });
  }
  assert(String(colors[0]) !== String(colors[1]), String(colors));
});

browserTest("a long file name breaks no page number of the tables", async () => {
  const recording = syntheticRecording({ pages: 20_000, layers: 2, heads: 2, steps: 3, budgetPages: 4 });
  recording.text.spans = recording.text.spans.map((span) => ({ ...span, source: "a_long_folder/".repeat(6) }));
  const html = await renderHtml(makeReport(recording, {}), { by: "mass", facts: [], tables: [] });
  await withHtml(html, async ({ page }) => {
    const highest = "Math.max(...[...document.querySelectorAll('#top button')].map((button) => button.offsetHeight))";
    assertEquals(await page.evaluate(`${highest} < 30`), true);
  });
});

browserTest("a step of layers that read everything says so of pages that were not wanted", async () => {
  const dense = syntheticRecording({ pages: 40, layers: 2, heads: 2, steps: 3, budgetPages: 4, dense: true });
  await withHtml(await renderHtml(makeReport(dense, {}), { by: "mass", facts: [], tables: [] }), async ({ page }) => {
    await page.getByRole("slider", { name: "Step" }).press("ArrowRight");
    const map = page.getByRole("application", { name: "All pages" });
    await map.press("Home");
    const seen: string[] = [];
    for (let at = 0; at < 40; at++, await map.press("ArrowRight")) seen.push(await textOf(page, "live"));
    assertEquals(seen.filter((text) => !text.includes("read 2 times, missed 0")), []);
  });
});

browserTest(`a step of 20,000 pages and 32 layers takes less than ${MOST_STEP_MS} ms`, async () => {
  const recording = syntheticRecording({ pages: 20_000, layers: 32, heads: 2, steps: 16, budgetPages: 64 });
  const html = await renderHtml(makeReport(recording, {}), { by: "mass", facts: [], tables: [] });
  await withHtml(html, async ({ page, complaints }) => {
    const times = await page.evaluate(() => {
      const { document, performance, Event } = globalThis as never as {
        document: { getElementById(id: string): { value: string; dispatchEvent(event: unknown): void } };
        performance: { now(): number };
        Event: new (name: string) => unknown;
      };
      const slider = document.getElementById("step");
      return [3, 9, 16, 5, 0, 1, 12].map((step) => {
        const started = performance.now();
        slider.value = String(step);
        slider.dispatchEvent(new Event("input"));
        return performance.now() - started;
      });
    });
    assertEquals(complaints, []);
    const middle = times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!;
    assert(middle < MOST_STEP_MS, String(times));
  });
});
