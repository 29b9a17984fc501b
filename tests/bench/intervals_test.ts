import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { pairedInterval, pairedScoreInterval, signTest, studentT95, wilson } from "../../bench/intervals.ts";

Deno.test("wilson() gives the published interval of 19 of 20", () => {
  const { low, high } = wilson(19, 20);
  assertAlmostEquals(low, 0.7639, 1e-4);
  assertAlmostEquals(high, 0.9911, 1e-4);
});

Deno.test("wilson() does not collapse if all are correct", () => {
  const { low, high } = wilson(20, 20);
  assertAlmostEquals(low, 0.8389, 1e-4);
  assertEquals(high, 1);
});

Deno.test("wilson() without trials covers 0 to 1", () => assertEquals(wilson(0, 0), { low: 0, high: 1 }));

for (
  const [degrees, wanted] of [[1, 12.706], [5, 2.571], [6, 2.447], [10, 2.228], [30, 2.042], [1000, 1.962]] as const
) {
  Deno.test(`studentT95() of ${degrees} degrees of freedom is ${wanted}`, () => {
    assertAlmostEquals(studentT95(degrees), wanted, 2e-3);
  });
}

Deno.test("pairedInterval() is centred on the mean of the differences", () => {
  const { low, high } = pairedInterval([1, 2, 3, 4, 5], 1);
  assertAlmostEquals((low + high) / 2, 3, 1e-9);
  assertAlmostEquals(high - 3, 2.776 * Math.sqrt(2.5 / 5), 1e-6);
});

Deno.test("pairedInterval() counts neighbours of a block once", () => {
  const one = pairedInterval([1, 2, 3, 4], 1);
  const repeated = pairedInterval([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4], 3);
  assertEquals(repeated, one);
});

Deno.test("pairedInterval() of one block is unbounded", () => {
  assertEquals(pairedInterval([1, 2, 3], 3), { low: -Infinity, high: Infinity });
});

Deno.test("signTest() of as many gained as lost is no surprise", () => assert(signTest(5, 5) > 0.5));

Deno.test("signTest() of eight gained and none lost is one of 256", () =>
  assertAlmostEquals(signTest(8, 0), 1 / 256, 1e-12));

Deno.test("signTest() without pairs is no surprise", () => assertEquals(signTest(0, 0), 1));

Deno.test("pairedScoreInterval() gives the published formula for 10 pairs of which 3 fall and 1 rises", () => {
  // Agresti and Min: b = 1.5, c = 3.5, n = 12 after half a pair is added to each of the four cells
  const { low, high } = pairedScoreInterval([1, -1, -1, -1, 0, 0, 0, 0, 0, 0]);
  const half = 1.959964 * Math.sqrt(1.5 + 3.5 - (1.5 - 3.5) ** 2 / 12) / 12;
  assertAlmostEquals(low, -2 / 12 - half, 1e-12);
  assertAlmostEquals(high, -2 / 12 + half, 1e-12);
});

Deno.test("pairedScoreInterval() does not collapse if no pair differs", () => {
  const { low, high } = pairedScoreInterval(new Array(6).fill(0));
  assert(low < -0.2 && high > 0.2);
});
