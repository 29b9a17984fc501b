import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Engine } from "../../engine/engine.ts";
import { ablate, fileMasks, pageMasks } from "../../inspect/ablate.ts";
import { makeReport } from "../../inspect/report.ts";
import { inspectText, loadShipped, QUESTION, WITH_FACT } from "./runs.ts";
import { syntheticRecording } from "./synthetic.ts";

const { signal } = new AbortController();

/** Sum of the log-probabilities of the last tokens, from one dense pass over all of them. */
async function denseLogProbability(engine: Engine, ids: readonly number[], from: number): Promise<number> {
  const { vocabSize } = engine.config;
  const logits = await engine.logits(ids);
  let sum = 0;
  for (let at = from; at < ids.length; at++) {
    const row = logits.subarray((at - 1) * vocabSize, at * vocabSize);
    const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
    sum += row[ids[at]!]! - most - Math.log(row.reduce((total, logit) => total + Math.exp(logit - most), 0));
  }
  return sum;
}

Deno.test("ablate() without a mask gives the log-probability that a dense pass gives", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 5, sparse: { mode: "off" } });
  const { answerIds, promptTokens } = run.recording.facts;
  const [none] = await ablate(run, makeReport(run.recording, {}), [{ label: "none", pages: [] }], signal);
  const ids = [...engine.tokenizer.encode(`${WITH_FACT}\n\n${QUESTION}`), ...answerIds];
  assertAlmostEquals(none!.baseline, await denseLogProbability(engine, ids, promptTokens + 1), 0.02);
  assertEquals(none!.logProbability, none!.baseline);
});

Deno.test("ablate() finds that the page of the fact decides the answer, and others do not", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 5 });
  const report = makeReport(run.recording, {});
  const fact = Array.from({ length: run.recording.facts.pages }, (_, page) => page)
    .find((page) => report.texts.text(page).includes("48213"))!;
  const masks = [{ label: "fact", pages: [fact] }, { label: "other", pages: [fact + 20] }];
  const [masked, other] = await ablate(run, report, masks, signal);
  assert(masked!.logProbability < masked!.baseline - 3, `${masked!.logProbability} of ${masked!.baseline}`);
  assert(Math.abs(other!.logProbability - other!.baseline) < 0.5);
});

Deno.test("ablate() can mask pages of dense layers too", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, { steps: 5, sparse: { mode: "off" } });
  const report = makeReport(run.recording, {});
  const file = fileMasks(report).find(({ label }) => label === "file.txt");
  const [masked] = await ablate(run, report, [file!], signal);
  assert(masked!.logProbability < masked!.baseline - 3);
});

Deno.test("fileMasks() masks the page of a file that shares it with a longer one", () => {
  const recording = syntheticRecording({ pages: 20, layers: 1, heads: 1, steps: 2, budgetPages: 4 });
  const { spans, text } = recording.text;
  recording.text.spans = [
    { ...spans[0]!, end: 45 },
    { source: "note.txt", start: 45, end: 55, line: 1 },
    { ...spans[0]!, start: 55, end: text.length },
  ];
  const note = fileMasks(makeReport(recording, {})).find(({ label }) => label === "note.txt");
  assertEquals(note?.pages, [1]);
});

Deno.test("pageMasks() and fileMasks() leave the pages of the answer alone", async () => {
  await using engine = await loadShipped();
  using run = await inspectText(engine, WITH_FACT, {
    steps: 12,
    sparse: { mode: "on", budgetTokens: 128, recentPages: 0 },
  });
  const report = makeReport(run.recording, {});
  const first = Math.floor(run.recording.facts.promptTokens / 8);
  const pages = [...pageMasks(report, "mass", 10_000), ...fileMasks(report)].flatMap((mask) => mask.pages);
  assert(pages.length > 0 && pages.every((page) => page < first));
});
