/** The reading view of the HTML report in a real browser. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Page } from "playwright-core";
import { renderHtml } from "../../inspect/html/html.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";
import { browserTest, clickAt, MARKUP, type OpenReport, textOf, withHtml, withReport } from "./report.ts";

const LEAST_CONTRAST = 4.5;

/** Opens a report of a text that is spread over 400 pages; `{ }` fills what is left. */
async function withText(
  text: string,
  work: (report: OpenReport) => Promise<void>,
  options: Parameters<typeof withHtml>[2] = {},
): Promise<void> {
  const recording = syntheticRecording({ pages: 400, layers: 2, heads: 2, steps: 3, budgetPages: 16 });
  const { length } = recording.text.text;
  recording.text.text = (text + "and so on\n".repeat(length)).slice(0, length);
  await withHtml(await renderHtml(makeReport(recording, {}), { by: "mass", facts: [], tables: [] }), work, options);
}

/** Whether the chosen page is in view. */
function chosenInView(page: Page): Promise<boolean> {
  return page.evaluate(`(() => {
    const view = document.getElementById("scroller").getBoundingClientRect();
    const box = document.querySelector(".chosen")?.getBoundingClientRect();
    return box !== undefined && box.bottom > view.top && box.top < view.bottom;
  })()`);
}

browserTest("the report opens on the text, at the strongest page", async () => {
  await withReport(async ({ page }) => {
    assertEquals(await page.getByRole("tab", { selected: true }).textContent(), "Text");
    const strongest = await page.locator("#top .page-number").first().textContent();
    assertEquals(await textOf(page, "page-title"), `Page ${strongest}`);
    assertEquals(await chosenInView(page), true);
  });
});

browserTest("a click on the text chooses its page", async () => {
  await withReport(async ({ page }) => {
    const span = page.locator("#text [data-page='7']");
    await span.click({ position: { x: 5, y: 5 } });
    assertEquals(await textOf(page, "page-title"), "Page 7");
    assertEquals(await textOf(page, "page-text"), await span.textContent());
  }, { fragment: "#page=5" });
});

browserTest("left and right arrows in the text choose the page before and after", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("region", { name: "Text of the prompt" }).press("ArrowRight");
    assertMatch(await textOf(page, "live"), /^Page 11, /);
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    assertMatch(await textOf(page, "live"), /^Page 9, /);
    assertEquals(await chosenInView(page), true);
  }, { fragment: "#page=10" });
});

browserTest("choosing a word shows its steps and goes to their strongest page", async () => {
  await withReport(async ({ page }) => {
    const all = await textOf(page, "top");
    await page.getByRole("radio", { name: "48213" }).click();
    assertMatch(await textOf(page, "shown"), /^Steps 1 to 5 of 5, “48213”/);
    await page.getByRole("radio", { name: "8, step 2", exact: true }).click();
    assertMatch(await textOf(page, "shown"), /^Step 2 of 5, “8”/);
    const strongest = await page.locator("#top .page-number").first().textContent();
    assertEquals(await textOf(page, "page-title"), `Page ${strongest}`);
    assertEquals(await chosenInView(page), true);
    assertMatch(await textOf(page, "live"), /^Step 2 of 5, “8”: Page \d+, /);
    await page.getByRole("radio", { name: "All steps" }).click();
    assertEquals(await textOf(page, "top"), all);
  }, { fragment: "#page=0" });
});

browserTest("arrow keys choose words, and Escape returns to all steps", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("radio", { name: "All steps" }).focus();
    await page.keyboard.press("ArrowRight");
    assertEquals(await page.getByRole("radio", { name: "48213" }).getAttribute("aria-checked"), "true");
    await page.keyboard.press("Escape");
    assertEquals(await page.getByRole("radio", { name: "All steps" }).getAttribute("aria-checked"), "true");
    assertEquals(await page.evaluate("document.activeElement.textContent"), "All steps");
  });
});

browserTest("a token that the prefill gave cannot be chosen", async () => {
  await withReport(async ({ page }) => {
    await page.getByRole("radio", { name: "48213" }).click();
    assertEquals(await page.locator("#tokens [aria-disabled=true]").count(), 1);
  });
});

browserTest("find counts hits, and Enter and Shift-Enter step through them", async () => {
  await withText(`first NEEDLE\n${"hay\n".repeat(900)}a nee\ndle and a needle, needle\n`, async ({ page }) => {
    await page.keyboard.press("/");
    await page.keyboard.type("needle");
    assertEquals(await textOf(page, "hits"), "1 of 3");
    await page.keyboard.press("Enter");
    assertEquals([await textOf(page, "hits"), await page.locator("mark.current").textContent()], ["2 of 3", "needle"]);
    assertEquals(await page.locator("mark.current").evaluate((mark) => mark.getBoundingClientRect().top > 0), true);
    await page.keyboard.press("Shift+Enter");
    assertEquals([await textOf(page, "hits"), await page.locator("mark.current").textContent()], ["1 of 3", "NEEDLE"]);
    assertMatch(await textOf(page, "live"), /^Hit 1 of 3, page 0: first NEEDLE/);
  });
});

browserTest("find says that there are no hits", async () => {
  await withText("some text", async ({ page }) => {
    await page.getByRole("searchbox", { name: "Find in text" }).fill("absent");
    assertEquals(await textOf(page, "hits"), "No hits");
    assertEquals(await page.getByRole("button", { name: "Next hit" }).isDisabled(), true);
  });
});

browserTest("a link restores page, steps, layer, head, measure and tab", async () => {
  const fragment = "#page=20&step=2-4&layer=3&head=1&measure=selected&tab=heat";
  await withReport(async ({ page }) => {
    assertEquals(await textOf(page, "page-title"), "Page 20");
    assertMatch(await textOf(page, "shown"), /^Steps 2 to 4 of 5, .*layer 3, KV head 1$/);
    assertEquals(await textOf(page, "top-title"), "Top pages by read");
    assertEquals(await page.getByRole("tab", { selected: true }).textContent(), "Heat map");
    assertEquals(await page.evaluate("location.hash"), fragment);
    assertEquals(await page.locator("#page-link").getAttribute("href"), fragment);
  }, { fragment });
});

browserTest("a link that names what the report lacks opens what it has", async () => {
  await withReport(async ({ page, complaints }) => {
    assertMatch(await textOf(page, "page-title"), /^Page \d+$/);
    assertMatch(await textOf(page, "shown"), /^All 5 decode steps, 8 layers, 2 KV heads$/);
    assertEquals(complaints, []);
  }, { fragment: "#page=999999&step=7-2&layer=99&head=x&measure=constructor&tab=%3Cb%3E" });
});

browserTest("a link that is opened in the open report is followed", async () => {
  await withReport(async ({ page }) => {
    await page.evaluate("location.hash = '#page=7'");
    await page.getByRole("heading", { name: "Page 7 " }).waitFor();
  });
});

browserTest("the text reads as the document does, control characters made visible", async () => {
  await withText("# Title\n\n  indented\x1b[31m\u202eevil\n\ttab 日本語 👩‍👩‍👧 é\r\nnext\n", async ({ page }) => {
    const text = await page.locator("#text").innerText();
    assertStringIncludes(text.replaceAll("\u200b", ""), "# Title\n\n  indented␛[31m␦evil\n\ttab 日本語 👩‍👩‍👧 é\nnext\n");
  }, { fragment: "#page=0" });
});

browserTest("a document without line breaks wraps within the column", async () => {
  await withText(`${MARKUP}${"x".repeat(3000)} `, async ({ page, complaints }) => {
    assertEquals(await page.locator("#scroller").evaluate((view) => view.scrollWidth <= view.clientWidth), true);
    assertEquals(complaints, []);
  }, { fragment: "#page=0" });
});

for (const colorScheme of ["light", "dark"] as const) {
  browserTest(`text on any shade keeps a contrast of ${LEAST_CONTRAST} in ${colorScheme}`, async () => {
    await withReport(async ({ page }) => {
      const contrasts = await page.evaluate<number[]>(`(() => {
        const light = (color) => {
          const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
          const linear = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
          return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        };
        const ground = getComputedStyle(document.body).backgroundColor;
        return [...document.querySelectorAll("#text [data-page], .choice, .hint, dt, #summary, .value")].map((span) => {
          const { color, backgroundColor } = getComputedStyle(span);
          const under = /^rgba.*, 0\\)$/.test(backgroundColor) ? ground : backgroundColor;
          const [low, high] = [light(color), light(under)].sort((a, b) => a - b);
          return (high + 0.05) / (low + 0.05);
        });
      })()`);
      assert(contrasts.length > 20 && Math.min(...contrasts) >= LEAST_CONTRAST, String(Math.min(...contrasts)));
    }, { colorScheme, fragment: "#measure=mass&step=2" });
  });
}

browserTest("the mini-map goes to the part of the text that is pressed", async () => {
  await withText("", async ({ page }) => {
    await clickAt(page, "minimap", 0.5, 0.75);
    const chosen = Number((await textOf(page, "page-title")).slice("Page ".length));
    assert(chosen > 290 && chosen < 310, String(chosen));
    assertEquals(await chosenInView(page), true);
  });
});

browserTest("text far from view is not in the page, and comes when it is scrolled to", async () => {
  await withText("", async ({ page }) => {
    const filled =
      "document.querySelectorAll('.block:not(:empty)').length < document.querySelectorAll('.block').length";
    assertEquals(await page.evaluate(filled), true);
    await page.locator("#scroller").evaluate((view) => view.scrollTo(0, view.scrollHeight));
    await page.locator("[data-page='399']").waitFor();
  }, { fragment: "#page=0" });
});

browserTest("the text shows the chosen page again after another tab", async () => {
  await withText("", async ({ page }) => {
    await page.getByRole("tab", { name: "Heat map" }).click();
    await page.getByRole("application", { name: "All pages" }).press("PageDown");
    await page.getByRole("tab", { name: "Text" }).click();
    await page.waitForTimeout(100); // blocks in view are filled after the next frames
    assertEquals([await textOf(page, "page-title"), await chosenInView(page)], ["Page 232", true]);
  }, { fragment: "#page=200" });
});

browserTest("the browser prints the whole text", async () => {
  await withText("", async ({ page }) => {
    const empty = "dispatchEvent(new Event('beforeprint')), document.querySelectorAll('.block:empty').length";
    assertEquals(await page.evaluate(empty), 0);
  }, { fragment: "#page=0" });
});

browserTest("paper shows all of the text and no controls", async () => {
  await withText("", async ({ page }) => {
    await page.emulateMedia({ media: "print" });
    await page.locator("[data-page='399']").waitFor();
    assertEquals(await page.locator("#scroller").evaluate((view) => view.scrollHeight <= view.clientHeight), true);
    assertEquals(await page.getByRole("tablist").isVisible(), false);
  }, { fragment: "#page=0" });
});

browserTest("a narrow window needs no sideways scrolling", async () => {
  await withReport(async ({ page }) => {
    assertEquals(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
    assertEquals(await chosenInView(page), true);
  }, { viewport: { width: 390, height: 800 } });
});
