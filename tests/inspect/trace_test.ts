import { assert, assertEquals, assertRejects } from "@std/assert";
import { PagesiftError } from "../../engine/errors.ts";
import type { Recording } from "../../inspect/recording.ts";
import { makeReport } from "../../inspect/report.ts";
import { readTrace, writeTrace } from "../../inspect/trace.ts";
import { syntheticRecording } from "./synthetic.ts";

const SHAPE = { pages: 300, layers: 3, heads: 2, steps: 4, budgetPages: 16 };

Deno.test("readTrace() gives back what writeTrace() was given", async () => {
  const recording: Recording = {
    ...syntheticRecording(SHAPE),
    ablations: [{ label: "page 3", pages: [3], logProbability: -2, baseline: -1, mass: 0.25 }],
    comparison: { scorers: ["mean"], figures: new Float32Array(4 * 3 * 2 * 3).fill(0.5) },
    promptReads: Array.from({ length: SHAPE.pages }, (_, page) => page % 7),
  };
  const { rows, ...again } = await readTrace(await writeTrace(recording), "t");
  const { rows: ours, ...rest } = recording;
  assertEquals(again, rest);
  assertEquals(rows.toBytes(), ours.toBytes());
});

Deno.test("readTrace() keeps a byte order mark at the beginning of the text", async () => {
  const recording = syntheticRecording(SHAPE);
  recording.text.text = `\ufeff${recording.text.text.slice(1)}`;
  assertEquals((await readTrace(await writeTrace(recording), "t")).text.text, recording.text.text);
});

Deno.test("writeTrace() takes a fraction of what full precision would", async () => {
  const recording = syntheticRecording({ pages: 4096, layers: 8, heads: 2, steps: 16, budgetPages: 64 });
  const floats = 16 * 8 * 2 * 4096 * 2 * 4; // mass and score of every page at every step
  assert((await writeTrace(recording)).length < floats / 20);
});

const lies: [name: string, change: (recording: Recording) => void][] = [
  ["more tokens than it has text for", ({ facts }) => {
    facts.promptTokens += 8;
    facts.pages += 1;
  }],
  ["a huge number of tokens", ({ facts }) => {
    facts.promptTokens = 2 ** 40;
    facts.pages = Math.ceil((2 ** 40 + facts.steps) / facts.pageSize);
  }],
  ["more steps than rows", ({ facts }) => facts.steps += 1],
  ["another layer", ({ facts }) => facts.layers.push("sparse")],
  ["no heads", ({ facts }) => facts.heads = 0],
  ["pages of no tokens", ({ facts }) => facts.pageSize = 0],
  ["a layer of another kind", ({ facts }) => facts.layers[0] = "thick" as "dense"],
  ["a scorer that there is not", ({ comparison }) => (comparison!.scorers as string[])[0] = "luck"],
  ["a count that is none", ({ facts }) => facts.budgetPages = -1],
  ["an answer that is no list", ({ facts }) => facts.answerIds = "none" as unknown as number[]],
];
for (const [name, change] of lies) {
  Deno.test(`readTrace() refuses a whole trace that claims ${name}`, async () => {
    const figures = new Float32Array(4 * 3 * 2 * 3);
    const recording = { ...syntheticRecording(SHAPE), comparison: { scorers: ["mean" as const], figures } };
    change(recording);
    const bytes = await writeTrace(recording);
    const error = await assertRejects(() => readTrace(bytes, "t"), PagesiftError);
    assertEquals([error.kind, error.message.includes("\n")], ["model", false]);
  });
}

Deno.test("makeReport() of 131,072 pages takes seconds, not minutes", () => {
  const recording = syntheticRecording({ pages: 131_072, layers: 4, heads: 2, steps: 2, budgetPages: 64 });
  const started = performance.now();
  const report = makeReport(recording, {});
  assertEquals(report.pages.mass.length, 131_072);
  assert(performance.now() - started < 60_000); // on a busy machine, too
});
