import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { tokenAxis, valueAxis } from "../../bench/axis.ts";
import { renderPlot } from "../../bench/plot.ts";
import { speedPlot } from "../../bench/speed_plot.ts";
import { attentionRow, provenance } from "./tiny.ts";

const rows = [4096, 131072].flatMap((context_tokens) => [
  attentionRow({ context_tokens, median_us: context_tokens / 40, low_us: undefined, high_us: undefined } as object),
  attentionRow({ context_tokens, arm: "score", scorer: "unique" }),
  attentionRow({ context_tokens, arm: "sparse", scorer: "unique", budget_tokens: 512 }),
  attentionRow({ context_tokens, arm: "<peer> & co", program: "x" }),
]);
const svg = renderPlot(speedPlot(rows, provenance));

Deno.test("renderPlot() draws a line for every arm", () => {
  assertEquals(svg.match(/class="c\d line"/g)?.length, 2 * 3); // once in the panel, once in the legend
});

Deno.test("renderPlot() names every arm in the legend, escaped for XML", () => {
  for (const name of [">dense<", ">sparse unique 512<", ">&#60;peer&#62; &#38; co<"]) assertStringIncludes(svg, name);
});

Deno.test("renderPlot() leaves the parts of sparse attention to the table", () => assert(!svg.includes("score")));

Deno.test("renderPlot() titles both axes with their unit", () => {
  assertStringIncludes(svg, ">context, tokens (log scale)<");
  assertStringIncludes(svg, ">time, us (lower is faster) (log scale)<");
});

Deno.test("renderPlot() has colours for dark systems", () => assertMatch(svg, /@media\(prefers-color-scheme:dark\)\{/));

Deno.test("renderPlot() needs no script, style sheet or font from elsewhere", () => {
  assert(!/<script|<image|href=|@import|url\(/.test(svg));
});

Deno.test("renderPlot() draws only finite numbers", () => assert(!/NaN|Infinity|undefined/.test(svg)));

Deno.test("renderPlot() closes every element", () => {
  const open = [...svg.matchAll(/<(svg|title|style|text)\b/g)].length;
  assertEquals([...svg.matchAll(/<\/(svg|title|style|text)>/g)].length, open);
});

Deno.test("renderPlot() draws a panel per batch", () => {
  const both = [...rows, ...rows.map((row) => ({ ...row, batch: 8 }))];
  const text = renderPlot(speedPlot(both, provenance));
  assertEquals([text.includes(">batch 1, 32/8"), text.includes(">batch 8, 32/8")], [true, true]);
});

Deno.test("renderPlot() refuses to draw nothing", () => {
  assertThrows(() => renderPlot({ title: "", footer: "", panels: [] }), Error, "nothing to plot");
});

Deno.test("tokenAxis() is linear if it begins at 0", () => {
  const axis = tokenAxis("", [0, 8192, 32768], 0, 100);
  assertEquals([axis.log, axis.place(8192)], [false, 25]);
});

Deno.test("tokenAxis() is logarithmic over a wide range, with ticks at the measured values", () => {
  const axis = tokenAxis("", [4096, 131072, 32768], 0, 500);
  assertEquals([axis.log, axis.ticks, axis.ticks.map(axis.label)], [true, [4096, 32768, 131072], [
    "4k",
    "32k",
    "128k",
  ]]);
});

Deno.test("tokenAxis() places a single value in the middle", () => {
  assertEquals(tokenAxis("", [4096], 0, 100).place(4096), 50);
});

Deno.test("valueAxis() begins at 0 if it is linear", () => {
  const axis = valueAxis("", [60, 100], 100, 0);
  assertEquals([axis.log, axis.ticks[0], axis.place(0)], [false, 0, 100]);
});

Deno.test("valueAxis() encloses its values if it is logarithmic", () => {
  const axis = valueAxis("", [15, 3000], 100, 0);
  assertEquals([axis.log, axis.ticks[0], axis.ticks.at(-1)], [true, 10, 5000]);
});
