import { assertAlmostEquals, assertEquals } from "@std/assert";
import { argmax, divergence, logSoftmax } from "../../../engine/sample/log_probabilities.ts";

Deno.test("logSoftmax() sums to one, large logits or not", () => {
  const sum = logSoftmax(Float32Array.of(1000, 1001, 999)).reduce((total, value) => total + Math.exp(value), 0);
  assertAlmostEquals(sum, 1, 1e-12);
});

Deno.test("divergence() of equal distributions is 0, of others above", () => {
  const [p, q] = [logSoftmax(Float32Array.of(1, 2, 3)), logSoftmax(Float32Array.of(3, 2, 1))];
  assertEquals([divergence(p, p), divergence(p, q) > 0], [0, true]);
});

Deno.test("argmax() returns the first of equal numbers", () => assertEquals(argmax(Float32Array.of(1, 3, 3)), 1));
