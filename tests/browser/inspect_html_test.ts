/** The HTML report of inspect-pages in a real browser: the page as a whole, heat map and tables. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { renderHtml } from "../../inspect/html/html.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";
import { browserTest, clickAt, textOf, withHtml, withReport } from "./report.ts";

const PLAIN = { by: "mass", facts: [], tables: [] } as const;

browserTest("the report opens without a complaint of the browser and without a request", async () => {
  await withReport(async ({ page, complaints }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    await clickAt(page, "whole", 0.5, 0.5);
    assertEquals(complaints, []);
    assertEquals(await page.title(), "Pagesift: which pages mattered");
  });
});

browserTest("markup in the prompt stays text", async () => {
  await withReport(async ({ page }) => {
    assertStringIncludes(await textOf(page, "text"), "</script><script>globalThis.ran");
    assertEquals(await page.evaluate("globalThis.ran"), undefined);
    const elements = "[document.scripts.length, document.images.length, document.querySelectorAll('b').length]";
    assertEquals(await page.evaluate(elements), [3, 0, 0]);
  });
});

browserTest("a click on the heat map shows the page with file and line", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    await clickAt(page, "whole", 0.05, 0.5);
    assertMatch(await textOf(page, "page-title"), /^Page \d+$/);
    assertMatch(await textOf(page, "page-where"), /^a\.txt:1, tokens \d+ to \d+$/);
  });
});

browserTest("the pointer over the heat map shows page, layer and text", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    await page.hover("#zoom", { position: { x: 20, y: 20 } });
    assertMatch(await textOf(page, "tip"), /^Layer \d · Page \d+, .*attention .*\. \S/);
    assertEquals(await page.locator("#tip").isVisible(), true);
  });
});

browserTest("the keyboard moves over the heat map, and a screen reader hears what is reached", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    await page.getByRole("application", { name: "All pages" }).focus();
    await page.keyboard.press("Home");
    assertMatch(await textOf(page, "live"), /^Page 0, .*always read \(first pages\)/);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("PageDown");
    assertMatch(await textOf(page, "live"), /^Page 33, /);
    assertEquals(await page.locator("#live").getAttribute("aria-live"), "polite");
  });
});

browserTest("tabs are reached by arrow keys", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("tab", { name: "Text" }).focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    assertEquals(await page.getByRole("tab", { selected: true }).textContent(), "Heat map");
    assertEquals(await page.getByRole("tabpanel").getAttribute("id"), "heat-view");
  });
});

browserTest("a page of the missed list opens in the text, in the layer and head that missed it", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("tab", { name: "Run" }).click();
    const row = page.locator("table", { hasText: "Missed:" }).locator("tbody tr").first().locator("td");
    const [wanted, layer, head] = await row.allTextContents();
    await row.getByRole("button").click();
    assertEquals(await textOf(page, "page-title"), `Page ${wanted}`);
    assertEquals([await page.locator("#layer").inputValue(), await page.locator("#head").inputValue()], [layer, head]);
    assertEquals(await page.locator("#measure").inputValue(), "missed");
  });
});

browserTest("the report shows scorers, masked pages and files", async () => {
  await withReport(async ({ page }) => {
    const captions = await page.locator("#tables caption").allTextContents();
    assertEquals(captions.slice(2), [
      "By file",
      "Scorers on the same steps",
      "Log-probability of the answer with pages masked",
    ]);
  });
});

browserTest("choosing another measure orders pages by it", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("combobox", { name: "Shade by" }).selectOption("missed");
    assertEquals(await textOf(page, "top-title"), "Top pages by missed");
  });
});

browserTest("layer and KV head leave the rows that they name", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("combobox", { name: "Layer" }).selectOption("3");
    await page.getByRole("combobox", { name: "KV head" }).selectOption("1");
    assertMatch(await textOf(page, "shown"), /, layer 3, KV head 1$/);
    assertMatch(await textOf(page, "page-figures"), / of 5/);
  });
});

browserTest("the report is dark where the system is", async () => {
  const brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]";
  const corner = "[...document.getElementById('minimap').getContext('2d').getImageData(9, 99, 1, 1).data].slice(0, 3)";
  const colors: unknown[] = [];
  for (const colorScheme of ["light", "dark"] as const) {
    await withReport(async ({ page }) => {
      assertEquals(await page.evaluate(`${brightness} > 128`), colorScheme === "light");
      colors.push(await page.evaluate(corner));
    }, { colorScheme });
  }
  assert(String(colors[0]) !== String(colors[1]), String(colors));
});

browserTest("a long file name makes no row of the page list higher", async () => {
  const recording = syntheticRecording({ pages: 20_000, layers: 2, heads: 2, steps: 3, budgetPages: 4 });
  recording.text.spans = recording.text.spans.map((span) => ({ ...span, source: "a_long_folder/".repeat(6) }));
  await withHtml(await renderHtml(makeReport(recording, {}), PLAIN), async ({ page }) => {
    const highest = "Math.max(...[...document.querySelectorAll('#top button')].map((button) => button.offsetHeight))";
    assertEquals(await page.evaluate(`${highest} < 40`), true);
  });
});

browserTest("a step of layers that read everything says so of every page", async () => {
  const dense = syntheticRecording({ pages: 40, layers: 2, heads: 2, steps: 3, budgetPages: 4, dense: true });
  await withHtml(await renderHtml(makeReport(dense, {}), PLAIN), async ({ page }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    const map = page.getByRole("application", { name: "All pages" });
    await map.press("Home");
    const seen: string[] = [];
    for (let at = 0; at < 40; at++, await map.press("ArrowRight")) seen.push(await textOf(page, "live"));
    assertEquals(seen.filter((text) => !text.includes("read 4 of 4")), []);
  }, { fragment: "#step=2" });
});
