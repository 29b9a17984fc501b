import { assertEquals, assertStringIncludes } from "@std/assert";
import { formatSeconds } from "../../engine/text/format.ts";
import { prefillLine } from "../../cli/progress.ts";
import { statsLines } from "../../cli/stats.ts";
import { FakeEngine } from "./fake_engine.ts";
import { runGenerate } from "./fake_world.ts";

const stats = new FakeEngine().stats;

Deno.test("statsLines() tells speed, pages, memory and context", () => {
  assertEquals(statsLines(stats, "tiny", 51), [
    ["model", "tiny on cpu (2 threads)"],
    ["prompt", "8,192 tokens, prefill 2,048.0 tokens/s, first token after 4.25 s"],
    ["answer", "51 tokens, decode 25.0 tokens/s"],
    [
      "sparse",
      "selected in 49 of 50 steps, read 1,024 of 16,384 KV pages (6.3 %), 1 MiB of 16 MiB and 512 kiB of statistics",
    ],
    ["memory", "peak KV cache 32 MiB, weights 16 MiB"],
    ["context", "8,242 of 32,768 tokens"],
  ]);
});

Deno.test("statsLines() shows a dash where nothing was measured", () => {
  const idle = { ...stats, decodeTokens: 0, decodeSeconds: 0, pagesRead: 0, pagesDense: 0 };
  const lines = Object.fromEntries(statsLines(idle, "tiny", 1));
  assertEquals(lines.answer, "1 token, decode - tokens/s");
  assertEquals(lines.sparse!.includes("read 0 of 0 KV pages,"), true);
});

Deno.test("prefillLine() tells percentage, speed and time left", () => {
  const line = prefillLine({ doneTokens: 2048, reusedTokens: 0, totalTokens: 8192, seconds: 2 });
  assertEquals(line, "Reading prompt 25 %, 2,048 of 8,192 tokens, 1,024.0 tokens/s, 6.00 s left");
});

Deno.test("prefillLine() tells no speed before the first token", () => {
  assertEquals(
    prefillLine({ doneTokens: 0, reusedTokens: 0, totalTokens: 10, seconds: 0 }),
    "Reading prompt 0 %, 0 of 10 tokens",
  );
});

Deno.test("formatSeconds() goes over to minutes", () => {
  assertEquals([formatSeconds(0.417), formatSeconds(12.34), formatSeconds(125)], ["0.42 s", "12.3 s", "2 min 05 s"]);
});

Deno.test("generate rewrites the prefill's progress in place and clears it", async () => {
  const { stderr } = await runGenerate(["hi"], (world) => {
    world.stderr.terminal = true;
    world.engine.beforePiece = (index) => {
      if (index > 0) return;
      world.engine.options!.onPrefill!({ doneTokens: 5, reusedTokens: 0, totalTokens: 10, seconds: 1 });
      world.engine.options!.onPrefill!({ doneTokens: 10, reusedTokens: 0, totalTokens: 10, seconds: 2 });
    };
  });
  const shown = "\r\x1b[KReading prompt 50 %, 5 of 10 tokens, 5.0 tokens/s, 1.00 s left\r\x1b[K\x1b[2mmodel";
  assertEquals(stderr.includes(shown), true);
});

Deno.test("generate tells the prefill in one plain line under --verbose", async () => {
  const { stderr } = await runGenerate(["hi", "--verbose"], ({ engine }) => {
    engine.beforePiece = (index) => {
      if (index > 0) return;
      engine.options!.onPrefill!({ doneTokens: 5, reusedTokens: 0, totalTokens: 10, seconds: 1 });
      engine.options!.onPrefill!({ doneTokens: 10, reusedTokens: 0, totalTokens: 10, seconds: 2 });
    };
  });
  assertEquals(stderr.match(/Read.*/g), ["Read prompt, 10 tokens in 2.00 s"]);
});

const verification = {
  every: 16,
  steps: 40,
  agreed: 38,
  meanKl: 0.0213,
  maxKl: 0.25,
  firstDifference: 17,
  skipped: 0,
  overLimit: 0,
  denseSteps: 0,
  seconds: 1.5,
};

function linesOf(changed: Partial<typeof stats>): Record<string, string> {
  return Object.fromEntries(statsLines({ ...stats, ...changed }, "tiny", 51));
}

Deno.test("statsLines() tells agreement, first difference and divergence of a run that verifies", () => {
  const { verify = "", limit } = linesOf({ verification });
  for (const part of ["38 of 40", "95.0 %", "step 17", "0.0213", "0.2500"]) assertStringIncludes(verify, part);
  assertEquals([limit, verify.includes("not verified")], [undefined, false]);
});

Deno.test("statsLines() tells how many steps were due and read all pages anyway", () =>
  assertStringIncludes(
    linesOf({ verification: { ...verification, skipped: 9 } }).verify ?? "",
    "9 steps not verified",
  ));

Deno.test("statsLines() tells what a limit of the divergence did", () => {
  const { limit = "" } = linesOf({ verification: { ...verification, limit: 0.2, overLimit: 3, denseSteps: 48 } });
  for (const part of ["0.2", "3 verified steps", "48 steps"]) assertStringIncludes(limit, part);
});

Deno.test("statsLines() tells from which length on auto selects if the run stayed below it", () =>
  assertStringIncludes(linesOf({ selectedSteps: 0, selectsFromTokens: 9000 }).sparse ?? "", "from 9,000 tokens on"));

Deno.test("statsLines() tells that auto selects at no length of the context", () =>
  assertStringIncludes(linesOf({ selectedSteps: 0, selectsFromTokens: null }).sparse ?? "", "up to 32,768 tokens"));
