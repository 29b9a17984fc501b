import { assertEquals, assertThrows } from "@std/assert";
import { planQuality } from "../../bench/quality_plan.ts";
import { RULER_TASKS } from "../../bench/ruler.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { tinyQuality } from "./tiny.ts";

Deno.test("planQuality() gives each weight of a scorer an arm of its own", () => {
  const { passes, scorers } = planQuality({ ...tinyQuality, scorer: "diag:1.5,diag:2,quest,unique", lambda: 0.7 });
  const sparse = passes.flatMap(({ arms }) => arms).filter(({ name }) => name === "sparse");
  assertEquals(sparse.map(({ scorer, sparse: { lambda } }) => [scorer, lambda]), [
    ["diag:1.5", 1.5],
    ["diag:2", 2],
    ["quest", undefined],
    ["unique", 0.7],
  ]);
  assertEquals(scorers, ["diag", "quest", "unique"]);
});

Deno.test("planQuality() measures every arm with every page size", () => {
  const { passes } = planQuality({ ...tinyQuality, pageSize: "8,32" });
  assertEquals(
    passes.map(({ pageSize, arms }) => [pageSize, arms.length, arms.every((arm) => arm.sparse.pageSize === pageSize)]),
    [
      [8, 4, true],
      [32, 4, true],
    ],
  );
});

Deno.test("planQuality() takes ruler for all of its tasks, and files by their ending", () => {
  const { tasks, files } = planQuality({ ...tinyQuality, task: "prose,ruler,a.jsonl" });
  assertEquals([tasks, files], [["prose", ...RULER_TASKS], ["a.jsonl"]]);
});

Deno.test("planQuality() of files alone requires no room for documents of a length", () => {
  assertEquals(planQuality({ ...tinyQuality, task: "a.jsonl" }).longest, 0);
});

const refused: [changed: Partial<typeof tinyQuality>, word: string][] = [
  [{ scorer: "quest:1" }, "quest:1"],
  [{ pageSize: "8,12" }, "--page-size contains 12"],
  [{ pageSize: "8,32", budget: "48" }, "--budget 48 with --page-size 32"],
  [{ scorer: "diag:x" }, "diag:x"],
  [{ scorer: "diag:-1" }, "diag:-1"],
  [{ chat: true, task: "prose" }, "--chat"],
  [{ task: "poem" }, ".jsonl"],
];
for (const [changed, word] of refused) {
  Deno.test(`planQuality() refuses ${JSON.stringify(changed)}`, () => {
    assertEquals(assertThrows(() => planQuality({ ...tinyQuality, ...changed }), PagesiftError, word).kind, "usage");
  });
}
