import { assert, assertEquals, assertThrows } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { exceedsBudget, resolvePolicy, SCORERS } from "../../../engine/pages/page_policy.ts";
import type { SparseOptions } from "../../../engine/types.ts";

const NO_WINDOWS = [0, 0, 0];

function kinds(sparse: SparseOptions, windows: readonly number[] = NO_WINDOWS): string[] {
  return resolvePolicy(sparse, windows).layers.map(({ kind }) => kind);
}

function testRefusal(what: string, sparse: SparseOptions, message: string): void {
  Deno.test(`resolvePolicy refuses ${what}`, () => {
    const error = assertThrows(() => resolvePolicy(sparse, NO_WINDOWS), PagesiftError);
    assertEquals([error.kind, error.message], ["usage", message]);
  });
}

/** A value that only untyped callers can pass. */
function untyped(sparse: Record<string, unknown>): SparseOptions {
  return sparse;
}

Deno.test("resolvePolicy has the defaults of the method", () => {
  assertEquals(resolvePolicy({}, NO_WINDOWS), {
    pageSize: 8,
    groupPages: 1,
    budgetPages: 64,
    scorer: "unique",
    lambda: 0.5,
    sinkPages: 1,
    recentPages: 2,
    layers: [{ kind: "sparse" }, { kind: "sparse" }, { kind: "sparse" }],
  });
});

Deno.test("resolvePolicy has a default lambda for each scorer", () => {
  assertEquals(SCORERS.map((scorer) => resolvePolicy({ scorer }, NO_WINDOWS).lambda), [0.5, 4, 0, 0]);
});

Deno.test("resolvePolicy keeps a lambda of 0", () => {
  assertEquals(resolvePolicy({ lambda: 0 }, NO_WINDOWS).lambda, 0);
});

Deno.test("resolvePolicy counts the budget in pages of the chosen size", () => {
  assertEquals([8, 16, 32, 64].map((pageSize) => resolvePolicy({ pageSize }, NO_WINDOWS).budgetPages), [64, 32, 16, 8]);
});

Deno.test("resolvePolicy takes a budget of one page", () => {
  assertEquals(resolvePolicy({ budgetTokens: 64, pageSize: 64 }, NO_WINDOWS).budgetPages, 1);
});

Deno.test("resolvePolicy keeps no more sink and recent pages than the budget has", () => {
  const { sinkPages, recentPages } = resolvePolicy(
    { budgetTokens: 16, sinkPages: 2 ** 40, recentPages: 3 },
    NO_WINDOWS,
  );
  assertEquals([sinkPages, recentPages], [2, 2]);
});

Deno.test("resolvePolicy reads all pages in the first dense layers", () => {
  assertEquals(kinds({ denseLayers: 2 }), ["dense", "dense", "sparse"]);
});

Deno.test("resolvePolicy reads all pages everywhere with more dense layers than layers", () => {
  assertEquals(kinds({ denseLayers: 7 }), ["dense", "dense", "dense"]);
});

Deno.test("resolvePolicy reads all pages everywhere in mode off", () => {
  assertEquals(kinds({ mode: "off" }), ["dense", "dense", "dense"]);
});

Deno.test("resolvePolicy never selects in a layer with a window", () => {
  assertEquals(kinds({ mode: "on" }, [48, 0, 48]), ["window", "sparse", "window"]);
});

Deno.test("resolvePolicy keeps windows in dense layers and in mode off", () => {
  assertEquals(kinds({ denseLayers: 1 }, [48, 0, 0]), ["window", "sparse", "sparse"]);
  assertEquals(kinds({ mode: "off" }, [48, 0, 0]), ["window", "dense", "dense"]);
});

Deno.test("resolvePolicy gives a policy that nobody can change", () => {
  assert(Object.isFrozen(resolvePolicy({}, NO_WINDOWS)));
});

Deno.test("resolvePolicy keeps pages in groups of 8 where the device scores groups", () => {
  assertEquals(resolvePolicy({}, NO_WINDOWS, true).groupPages, 8);
  assertEquals(resolvePolicy({ levels: 2 }, NO_WINDOWS, true).groupPages, 8);
});

Deno.test("resolvePolicy keeps single pages at one level, or where the device scores no groups", () => {
  assertEquals(resolvePolicy({ levels: 1 }, NO_WINDOWS, true).groupPages, 1);
  assertEquals([1, 2].map((levels) => resolvePolicy(untyped({ levels }), NO_WINDOWS, false).groupPages), [1, 1]);
});

Deno.test("resolvePolicy keeps groups in mode off, so that one pool serves both", () => {
  assertEquals(resolvePolicy({ mode: "off" }, NO_WINDOWS, true).groupPages, 8);
});

Deno.test("resolvePolicy selects the same layers and pages at one level and at two", () => {
  const policies = ([1, 2] as const).map((levels) => resolvePolicy({ levels, denseLayers: 1 }, [0, 48, 0], true));
  assertEquals(policies.map((policy) => ({ ...policy, groupPages: 0 }))[0], { ...policies[1], groupPages: 0 });
});

const WANTED = "wanted a multiple of the page size";
testRefusal(
  "a budget between two pages and names both neighbours",
  { budgetTokens: 100 },
  `Sparse budget is 100 tokens, ${WANTED} 8; the nearest is 96 or 104`,
);
testRefusal(
  "a budget below one page and names the least",
  { budgetTokens: 63, pageSize: 64 },
  `Sparse budget is 63 tokens, ${WANTED} 64; the nearest is 64`,
);
testRefusal("a budget of 0", { budgetTokens: 0 }, `Sparse budget is 0 tokens, ${WANTED} 8; the nearest is 8`);
testRefusal("a negative budget", { budgetTokens: -8 }, `Sparse budget is -8 tokens, ${WANTED} 8; the nearest is 8`);
testRefusal(
  "a broken budget",
  { budgetTokens: 64.5 },
  `Sparse budget is 64.5 tokens, ${WANTED} 8; the nearest is 64 or 72`,
);
testRefusal("a budget that is no number", { budgetTokens: NaN }, `Sparse budget is NaN tokens, ${WANTED} 8`);
testRefusal("another page size", { pageSize: 24 }, "Page size is 24 tokens, wanted 8, 16, 32, 64");
testRefusal(
  "an unknown mode",
  untyped({ mode: "yes" }),
  'Sparse mode "yes" is unknown; wanted auto, on or off',
);
testRefusal(
  "an unknown scorer",
  untyped({ scorer: "best" }),
  'Scorer "best" is unknown; wanted unique, diag, quest, mean',
);
testRefusal("a negative lambda", { lambda: -0.5 }, "Lambda is -0.5, wanted a number from 0");
testRefusal("an infinite lambda", { lambda: Infinity }, "Lambda is Infinity, wanted a number from 0");
testRefusal("a negative sink", { sinkPages: -1 }, "Number of sink pages is -1, wanted a whole number from 0");
testRefusal("half a recent page", { recentPages: 0.5 }, "Number of recent pages is 0.5, wanted a whole number from 0");
testRefusal("NaN dense layers", { denseLayers: NaN }, "Number of dense layers is NaN, wanted a whole number from 0");

for (const levels of [0, 3, 1.5, NaN]) {
  testRefusal(`${levels} levels`, untyped({ levels }), `Score levels are ${levels}, wanted 1 or 2`);
}

Deno.test("exceedsBudget is false while all pages fit the budget", () => {
  const policy = resolvePolicy({ budgetTokens: 32, pageSize: 8 }, NO_WINDOWS);
  assertEquals([1, 25, 32].map((tokens) => exceedsBudget(policy, tokens)), [false, false, false]);
});

Deno.test("exceedsBudget is true from the first token of the first page too many", () => {
  const policy = resolvePolicy({ budgetTokens: 32, pageSize: 8 }, NO_WINDOWS);
  assertEquals([33, 40, 41].map((tokens) => exceedsBudget(policy, tokens)), [true, true, true]);
});
