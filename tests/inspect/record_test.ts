/** What is recorded of real decode steps, against the engine and against other ways to the same numbers. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { PagesiftError } from "../../engine/errors.ts";
import type { PrefillProgress } from "../../engine/types.ts";
import { compareScorers } from "../../inspect/compared.ts";
import { makeReport, pagesAt } from "../../inspect/report.ts";
import { rowIndex } from "../../inspect/recording.ts";
import { DEVICE_KIND } from "../support/device.ts";
import { collect, loadFixture, promptIds } from "../support/fixture_model.ts";
import { inspectIds, inspectText, loadShipped, WITH_FACT } from "./runs.ts";

const NO_TEXT = { prompt: "", parts: [] };

Deno.test("record() gives the tokens that generate gives", async () => {
  await using engine = await loadFixture("qwen3-qknorm-f32");
  const sparse = { mode: "on", budgetTokens: 64 } as const;
  const sampling = { temperature: 0.8, seed: 7 };
  const wanted = await collect(engine.generate(promptIds("qwen3-qknorm-f32"), { ...sampling, maxTokens: 9, sparse }));
  using run = await inspectIds(engine, promptIds("qwen3-qknorm-f32"), NO_TEXT, { steps: 8, sparse, sampling });
  assertEquals(run.recording.facts.answerIds, wanted.ids);
});

Deno.test("record() observes an answer again as it was generated", async () => {
  await using engine = await loadShipped();
  using first = await inspectText(engine, WITH_FACT, { steps: 3 });
  const { facts } = first.recording;
  using again = await inspectText(engine, WITH_FACT, { steps: 3, answerIds: facts.answerIds });
  assertEquals(again.recording.facts.answerText, facts.answerText);
  assertEquals(again.recording.totals, first.recording.totals);
});

Deno.test("record() observes an answer that the engine has just given without reading its prompt again", async () => {
  const ids = promptIds("llama-f32", 200);
  const options = { steps: 5, sparse: { mode: "on", budgetTokens: 24 } } as const;
  await using engine = await loadFixture("llama-f32");
  using alone = await inspectIds(engine, ids, NO_TEXT, options);
  const { facts: { answerIds }, totals } = alone.recording;
  await collect(engine.generate(ids, { maxTokens: 6, sparse: options.sparse }));
  const progress: PrefillProgress[] = [];
  const onPrefill = (state: PrefillProgress): unknown => progress.push(state);
  using again = await inspectIds(engine, ids, NO_TEXT, { ...options, answerIds, onPrefill });
  // A prompt read in other chunks rounds its keys differently, by at most one unit of the 16-bit codes.
  for (const key of ["mass", "score"] as const) {
    assertEquals(again.recording.totals[key].length, totals[key].length);
    assertEquals(totals[key].findIndex((code, at) => Math.abs(code - again.recording.totals[key][at]!) > 1), -1, key);
  }
  const known = DEVICE_KIND === "cuda" ? 128 : 176; // whole groups of pages, and 17 tokens are always read
  assertEquals(progress.map(({ doneTokens, reusedTokens }) => [doneTokens, reusedTokens]), [[200, known]]);
});

Deno.test("record() finds that the run read what its own scorer chooses when every page is scored", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, {
    compare: ["unique"],
    sparse: { mode: "on", budgetTokens: 128, levels: 1 },
  });
  const [ours, unique] = compareScorers(makeReport(run.recording, {}));
  assertEquals(unique?.overlap, 1);
  assertAlmostEquals(unique?.kept ?? 0, ours?.kept ?? 1, 1e-6);
});

Deno.test("compareScorers() leaves dense layers out where others select", async () => {
  await using engine = await loadShipped();
  const sparse = { mode: "on", budgetTokens: 128, levels: 1, denseLayers: 3 } as const;
  using run = await inspectText(engine, WITH_FACT, { steps: 2, compare: ["unique"], sparse });
  const [ours, unique] = compareScorers(makeReport(run.recording, {}));
  assertAlmostEquals(unique?.kept ?? 0, ours?.kept ?? 1, 1e-6);
});

Deno.test("record() finds no scorer that keeps more mass than the oracle", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { compare: ["unique", "diag", "quest", "mean", "oracle"] });
  const scorers = compareScorers(makeReport(run.recording, {}));
  const oracle = scorers.at(-1);
  assertEquals(oracle?.recall, 1);
  for (const { kept, recall } of scorers) assert(kept <= oracle!.kept + 1e-6 && recall > 0 && recall <= 1);
});

Deno.test("record() gives every row a mass of 1", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT);
  const { pages } = makeReport(run.recording, { layer: 5, head: 1 });
  assertAlmostEquals(pages.mass.reduce((sum, mass) => sum + mass, 0), 1, 1e-3);
});

Deno.test("record() counts as many pages read as the native counters", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 3 });
  const { pagesRead, pagesDense, selectedSteps, layers, heads } = run.recording.facts;
  assertEquals([pagesRead, selectedSteps], [3 * layers.length * heads * 16, 3]);
  assertEquals([run.stats.pagesRead, run.stats.pagesDense], [pagesRead, pagesDense]);
});

Deno.test("record() lists the budget's pages in every sparse row", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 2 });
  const { rows, facts } = run.recording;
  for (let index = 0; index < rows.length; index++) {
    const { allRead, entries } = rows.read(index);
    assertEquals([allRead, entries.filter(({ selected }) => selected).length], [false, 16]);
    assertEquals(entries.filter(({ wanted }) => wanted).length, facts.budgetPages);
  }
});

Deno.test("record() of a dense run reads all, misses nothing and keeps all mass", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 2, sparse: { mode: "off" } });
  const { whole, misses, pages } = makeReport(run.recording, { step: 1 });
  assertEquals([whole.kept, whole.recall, misses.length], [1, 1, 0]);
  const { layers, heads } = run.recording.facts;
  assertEquals(pages.selected[0], layers.length * heads);
});

Deno.test("record() sees that dense layers read all and sparse ones do not", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, {
    steps: 1,
    sparse: { mode: "on", budgetTokens: 128, denseLayers: 2 },
  });
  const { facts, rows } = run.recording;
  assertEquals(facts.layers.slice(0, 3), ["dense", "dense", "sparse"]);
  assertEquals(facts.layers.map((_, layer) => rows.read(rowIndex(facts, 0, layer, 0)).allRead).slice(0, 3), [
    ...[true, true, false],
  ]);
});

Deno.test("record() leaves layers with a sliding window out of recall", async () => {
  await using engine = await loadFixture("mistral-sliding-bf16");
  using run = await inspectIds(engine, promptIds("mistral-sliding-bf16"), NO_TEXT, {
    sparse: { mode: "on", budgetTokens: 64 },
    compare: ["unique", "oracle"],
  });
  const { facts } = run.recording;
  const window = facts.layers.indexOf("window");
  assert(window >= 0);
  const report = makeReport(run.recording, { layer: window });
  assertEquals([report.whole.recall, report.misses.length], [NaN, 0]);
  const mass = report.pages.mass.reduce((sum, share) => sum + share, 0);
  assertAlmostEquals(mass, 1, 1e-3);
});

Deno.test("record() counts no page as selected by a layer with a sliding window", async () => {
  await using engine = await loadFixture("mistral-sliding-bf16");
  using run = await inspectIds(engine, promptIds("mistral-sliding-bf16"), NO_TEXT, {
    sparse: { mode: "on", budgetTokens: 64 },
  });
  const layer = run.recording.facts.layers.indexOf("window");
  assertEquals(Math.max(...makeReport(run.recording, { layer }).pages.selected), 0);
});

Deno.test("record() sums the missed mass that the figures say was lost", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 2 });
  const { whole, pages, misses } = makeReport(run.recording, { step: 0, layer: 4, head: 0 });
  // What was read instead of the missed pages makes up for a part of it.
  const lost = pages.lost.reduce((sum, mass) => sum + mass, 0);
  assert(misses.length > 0 && lost >= whole.best - whole.kept - 1e-3 && lost <= 1 - whole.kept + 1e-3);
});

Deno.test("record() knows how many pages each step had", async () => {
  await using engine = await loadFixture("llama-f32");
  using run = await inspectIds(engine, promptIds("llama-f32", 207), NO_TEXT, { steps: 3 });
  assertEquals([0, 1, 2].map((step) => pagesAt(run.recording, step)), [26, 27, 27]);
});

Deno.test("record() refuses a prompt that leaves no step to watch", async () => {
  await using engine = await loadFixture("llama-f32", { maxContext: 220 });
  const error = await assertRejects(() => inspectIds(engine, promptIds("llama-f32"), NO_TEXT), PagesiftError);
  assertEquals([error.kind, error.message.includes("decode step")], ["usage", true]);
});

Deno.test("record() counts recall over the pages that are not always read", async () => {
  await using engine = await loadShipped();
  const sparse = { mode: "on", budgetTokens: 128, sinkPages: 1, recentPages: 2 } as const;
  using run = await inspectText(engine, WITH_FACT, { steps: 2, sparse });
  const { figures } = run.recording;
  const wanted = Array.from({ length: figures.length / 4 }, (_, row) => figures[4 * row + 3]);
  assertEquals(new Set(wanted), new Set([16 - 1 - 2]));
});

Deno.test("record() counts how often tiles of a prompt chose each page", async () => {
  await using engine = await loadFixture("llama-f32");
  const sparse = { mode: "on", budgetTokens: 64, prefill: "on", prefillBudgetTokens: 64 } as const;
  using run = await inspectIds(engine, promptIds("llama-f32", 384), NO_TEXT, { steps: 2, sparse });
  const { promptReads = [], facts: { layers, heads } } = run.recording;
  const [tilesBehindPages, budgetPages, ownPages] = [2, 8, 48];
  const rows = layers.length * heads;
  assertEquals(promptReads[0], tilesBehindPages * rows);
  assertEquals(promptReads.reduce((sum, reads) => sum + reads, 0), tilesBehindPages * budgetPages * rows);
  assertEquals(run.stats.promptPagesRead, (tilesBehindPages * budgetPages + ownPages) * rows);
});
