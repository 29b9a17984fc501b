import { assertEquals, assertStringIncludes } from "@std/assert";
import { closingText, openingText, rowsText } from "../../bench/writers.ts";
import { attentionRow, provenance } from "./tiny.ts";

const sparse = attentionRow({ arm: "sparse", scorer: "unique", budget_tokens: 512, median_us: 20, of_dense: 5 });
const peer = attentionRow({ arm: 'sdpa, "cudnn"', program: "pytorch", device: "Other" });
const result = { subject: "attention" as const, provenance, rows: [attentionRow(), sparse] };

Deno.test("closingText() of json has the schema, the subject, provenance and rows", () => {
  const { schema, subject, provenance: made, rows } = JSON.parse(closingText("json", result));
  assertEquals([schema, subject, made, rows], ["pagesift.bench/1", "attention", provenance, result.rows]);
});

Deno.test("rowsText() of jsonl adds provenance to every row", () => {
  const { commit, device, program, median_us: us } = JSON.parse(rowsText("jsonl", [sparse], provenance));
  assertEquals([commit, device, program, us], ["abc1234", "Some CPU", "pagesift", 20]);
});

Deno.test("rowsText() of jsonl gives a peer none of our provenance", () => {
  const { commit, device } = JSON.parse(rowsText("jsonl", [peer], provenance));
  assertEquals([commit, device], [undefined, "Other"]);
});

Deno.test("rowsText() of csv has as many values as names", () => {
  const names = openingText("csv").trim().split(",");
  assertEquals(rowsText("csv", [sparse], provenance).trim().split(",").length, names.length);
});

Deno.test("rowsText() of csv quotes commas and quotes", () => {
  assertStringIncludes(rowsText("csv", [peer], provenance), 'attention,"sdpa, ""cudnn""",');
});

Deno.test("rowsText() writes nothing of tables before the end", () => {
  assertEquals([rowsText("table", [sparse], provenance), openingText("md")], ["", ""]);
});

Deno.test("closingText() of table states what all rows share once, above it", () => {
  const text = closingText("table", result);
  assertStringIncludes(text, "heads 32/8 of 128, dtype bf16, page 8\n");
});

Deno.test("closingText() of table states device, commit and notes", () => {
  const text = closingText("table", result);
  for (const part of ["commit abc1234", "Some CPU (avx2, 2 threads)", "A note."]) {
    assertStringIncludes(text, part);
  }
});

Deno.test("closingText() of table leaves out empty columns", () => {
  assertEquals(closingText("table", result).includes("tokens/s"), false);
});

Deno.test("closingText() of md gives the command and rows of equal width", () => {
  const text = closingText("md", result);
  assertStringIncludes(text, "\n    pagesift bench attention -r 3\n");
  assertEquals(new Set(text.split("\n").filter((line) => line.startsWith("|")).map((line) => line.length)).size, 1);
});

Deno.test("closingText() names tests as llama-bench does", () => {
  const row = { ...attentionRow(), prompt_tokens: 512, depth_tokens: 0 };
  const deep = { ...attentionRow(), decode_tokens: 128, depth_tokens: 32768 };
  const text = closingText("md", { ...result, rows: [row, deep] });
  assertStringIncludes(text, "| pp512 ");
  assertStringIncludes(text, "| tg128 @ d32768 ");
});
