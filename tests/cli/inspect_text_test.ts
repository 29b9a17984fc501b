/** The terminal view of `inspect-pages` at any width. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { inspectText } from "../../inspect/text/text.ts";
import { textWidth } from "../../inspect/text/width.ts";
import type { Recording } from "../../inspect/recording.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";

const plain = (text: string): string => text;
const PAINT = { color: (_: number, text: string) => text, bold: plain, dim: plain };

/** A view with every section, of a prompt in a file of this name. */
function view(width: number, source = "book.txt"): string {
  const shape = { pages: 300, layers: 12, heads: 2, steps: 4, budgetPages: 16 };
  const recording: Recording = {
    ...syntheticRecording(shape),
    ablations: [{ label: "page 3", pages: [3], logProbability: -2, baseline: -1, mass: 0.25 }],
    comparison: { scorers: ["mean"], figures: new Float32Array(4 * 12 * 2 * 3).fill(0.5) },
  };
  recording.text.spans = recording.text.spans.map((span) => ({ ...span, source }));
  return inspectText(makeReport(recording, {}), { by: "mass", top: 5, byFile: true, width, paint: PAINT });
}

for (const width of [40, 60, 80, 120]) {
  Deno.test(`inspectText() keeps every line within ${width} columns`, () => {
    assertEquals(view(width).split("\n").filter((line) => textWidth(line) > width), []);
  });
}

Deno.test("inspectText() keeps the text of a page where columns are few", () => {
  assertMatch(view(40), /\npage +where +mass +text\n +\d+ +book\.txt:1 .* word/);
});

Deno.test("inspectText() shows all columns where there is room", () => {
  assertMatch(view(120), /\nrank +page +tokens +where +score +selected +mass +missed +text\n/);
});

Deno.test("inspectText() cuts a file name of wide characters by the columns that it takes", () => {
  const lines = view(120, `資料/${"長い名前".repeat(6)}.txt`).split("\n");
  const row = lines[lines.findIndex((line) => line.startsWith("rank")) + 1] ?? "";
  assertStringIncludes(row, "word word word");
});
