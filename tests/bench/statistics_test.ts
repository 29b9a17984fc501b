import { assertAlmostEquals, assertEquals } from "@std/assert";
import { mean, median, percentile, timingOf } from "../../bench/statistics.ts";

Deno.test("median() of an odd number of values is the one in the middle", () => assertEquals(median([9, 1, 5]), 5));

Deno.test("median() of an even number of values lies between the two in the middle", () => {
  assertEquals(median([4, 1, 3, 2]), 2.5);
});

Deno.test("percentile() lies between neighbours in proportion", () => assertAlmostEquals(percentile([0, 10], 0.1), 1));

Deno.test("percentile() of one value is that value", () => assertEquals(percentile([7], 0.9), 7));

Deno.test("percentile() does not reorder its values", () => {
  const values = [3, 1, 2];
  percentile(values, 0.5);
  assertEquals(values, [3, 1, 2]);
});

Deno.test("mean() divides the sum by the number", () => assertEquals(mean([1, 2, 6]), 3));

Deno.test("timingOf() turns seconds into microseconds and spans the 10th to the 90th percentile", () => {
  const { samples, ...us } = timingOf([1e-6, 2e-6, 3e-6, 4e-6, 5e-6, 6e-6, 7e-6, 8e-6, 9e-6, 10e-6, 11e-6]);
  assertEquals(samples, 11);
  assertAlmostEquals(us.low_us ?? NaN, 2, 1e-9);
  assertAlmostEquals(us.median_us, 6, 1e-9);
  assertAlmostEquals(us.high_us ?? NaN, 10, 1e-9);
});
