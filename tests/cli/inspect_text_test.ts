/** The terminal view of `inspect-pages` at any width. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { massCode } from "../../inspect/codes.ts";
import { inspectText, type TextStyle } from "../../inspect/text/text.ts";
import { textWidth } from "../../inspect/text/width.ts";
import type { Recording } from "../../inspect/recording.ts";
import { makeReport } from "../../inspect/report.ts";
import { syntheticRecording } from "../inspect/synthetic.ts";

const plain = (text: string): string => text;
const PAINT = { color: (_: number, text: string) => text, bold: plain, dim: plain };

const STYLE: TextStyle = {
  ...{ by: "mass", top: 5, byFile: false, text: false, width: 80, paint: PAINT, highlight: "quotes" },
};

/** A view with every section, of a prompt in a file of this name. */
function view(width: number, source = "book.txt"): string {
  const shape = { pages: 300, layers: 12, heads: 2, steps: 4, budgetPages: 16 };
  const recording: Recording = {
    ...syntheticRecording(shape),
    ablations: [{ label: "page 3", pages: [3], logProbability: -2, baseline: -1, mass: 0.25 }],
    comparison: { scorers: ["mean"], figures: new Float32Array(4 * 12 * 2 * 3).fill(0.5) },
  };
  recording.text.spans = recording.text.spans.map((span) => ({ ...span, source }));
  return inspectText(makeReport(recording, {}), { ...STYLE, byFile: true, width });
}

const CODE = [
  "function first() {",
  "\treturn 1;",
  "}",
  "",
  "const café = first();\x1b[31m",
  "print(café);",
  "// The end of the text, which goes on for a while.",
];

/** Passages of a text of 40 tokens of 4 characters in pages of 2 tokens, of which these have the most mass. */
function passages(strongest: number[], style: Partial<TextStyle> = {}): string[] {
  const recording = syntheticRecording({ pages: 20, layers: 1, heads: 1, steps: 1, budgetPages: 4 });
  const facts = { ...recording.facts, pageSize: 2, promptTokens: 39 };
  const text = CODE.join("\n").padEnd(160, ".").slice(0, 160);
  const mass = Uint16Array.from({ length: 20 }, (_, page) => massCode(strongest.includes(page) ? 0.1 + page / 100 : 0));
  const tokenEnds = Uint32Array.from({ length: 40 }, (_, token) => 4 * (token + 1));
  const spans = [{ source: "a.ts", start: 0, end: 160, line: 1 }];
  const report = makeReport(
    { ...recording, facts, text: { text, tokenEnds, spans }, totals: { ...recording.totals, mass } },
    {},
  );
  const lines = inspectText(report, { ...STYLE, text: true, ...style }).trimEnd().split("\n");
  return lines.slice(lines.findIndex((line) => line.startsWith("Passages by")) + 2);
}

Deno.test("--text shows a page between marks, with its place, its figure and the lines around it", () => {
  assertEquals(passages([5]), [
    "a.ts:5  15.0 %  page 5",
    "  }",
    "  const c»afé = fi«rst();\\x1b[31m",
    "  print(café);",
  ]);
});

Deno.test("--text joins pages that follow each other, and passages that meet", () => {
  assertEquals(passages([5, 6, 8]), [
    "a.ts:5  49.0 %  pages 5-6, 8",
    "  }",
    "  const c»afé = first();\\x1b[«31m",
    "  prin»t(café);«",
    "  // The end of the text, which goes on for a",
  ]);
});

Deno.test("--text shows the passage of the strongest page first", () => {
  const heads = passages([2, 15]).filter((line) => line.startsWith("a.ts"));
  assertEquals(heads, ["a.ts:7  25.0 %  page 15", "a.ts:1  12.0 %  page 2"]);
});

Deno.test("--text paints each line of a page where there is color, and writes no marks", () => {
  const lines = passages([8], { highlight: (text) => `[${text}]` });
  assertEquals(lines[2], "  prin[t(café);]");
});

for (const width of [20, 40, 120]) {
  Deno.test(`--text keeps every line of a passage within ${width} columns`, () => {
    assertEquals(passages([5, 6, 15], { width }).filter((line) => textWidth(line) > width), []);
  });
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
