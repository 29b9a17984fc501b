import { assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { answerFields, emptyTally, proseFields, type Tally } from "../../bench/quality_tally.ts";

function answered(name: "dense" | "sparse", scores: readonly number[]): Tally {
  const answers = scores.map((score, index) => ({ score, depth: index / scores.length }));
  return { ...emptyTally({ name, sparse: {} }), answers };
}

function predicted(name: "dense" | "sparse", losses: number[]): Tally {
  return {
    ...emptyTally({ name, sparse: {} }),
    ...{ losses, divergences: losses.map(() => 0.5), agreements: losses.map((_, index) => index % 2 === 0) },
  };
}

const dense = answered("dense", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

Deno.test("answerFields() counts correct answers and where in the documents they were", () => {
  const { right, trials, accuracy, by_depth: parts } = answerFields(answered("sparse", [1, 0, 1, 1, 0, 0]), dense);
  assertEquals([right, trials, accuracy, parts], [3, 6, 0.5, "1/2 2/2 0/2"]);
});

Deno.test("answerFields() gives the mean score and its paired difference to dense", () => {
  const [half, full] = [answered("sparse", [0.5, 0.5, 1, 1]), answered("dense", [1, 1, 1, 1])];
  const { score, right, score_change: change, score_change_low: low, score_change_high: high } = answerFields(
    half,
    full,
  );
  assertEquals([score, right, change], [0.75, 2, -0.25]);
  assertEquals((low ?? 0) < -0.25 && (high ?? 0) > -0.25, true);
});

Deno.test("answerFields() names no depths if answers lie in several places", () => {
  const answers = [{ score: 1, depth: undefined }];
  assertEquals(answerFields({ ...emptyTally({ name: "dense", sparse: {} }), answers }, dense).by_depth, undefined);
});

Deno.test("answerFields() raises no alarm if a sparse arm is slightly better", () => {
  assertEquals(answerFields(answered("sparse", [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), dense).alarm, undefined);
});

Deno.test("answerFields() raises an alarm if a sparse arm often finds what dense misses", () => {
  const fields = answerFields(answered("sparse", new Array(12).fill(1)), dense);
  assertMatch(fields.alarm ?? "", /^finds 9 that dense misses, misses 0/);
});

const losses = Array.from({ length: 64 }, (_, index) => 2 + Math.sin(index) / 10);

Deno.test("proseFields() of dense has a loss and no comparison", () => {
  assertEquals(Object.keys(proseFields(predicted("dense", losses), predicted("dense", losses))), ["loss"]);
});

Deno.test("proseFields() gives the paired change of the loss with its interval", () => {
  const worse = losses.map((loss, index) => loss + 0.1 + Math.cos(index) / 50);
  const fields = proseFields(predicted("sparse", worse), predicted("dense", losses));
  assertAlmostEquals(fields.loss_change ?? NaN, 0.1, 0.01);
  assertEquals([(fields.loss_change_low ?? 0) > 0.05, fields.alarm, fields.top1_agreement], [true, undefined, 0.5]);
});

Deno.test("proseFields() raises an alarm if a sparse arm predicts better by more than noise", () => {
  const better = losses.map((loss, index) => loss - 0.1 + Math.cos(index) / 50);
  assertMatch(proseFields(predicted("sparse", better), predicted("dense", losses)).alarm ?? "", /lower$/);
});
