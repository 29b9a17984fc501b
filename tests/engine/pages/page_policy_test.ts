import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { exceedsBudget, resolvePolicy, SCORERS, tileSelects } from "../../../engine/pages/page_policy.ts";
import type { SparseOptions } from "../../../engine/types.ts";

const NO_WINDOWS = [0, 0, 0];

function kinds(sparse: SparseOptions, windows: readonly number[] = NO_WINDOWS): string[] {
  return resolvePolicy(sparse, windows).layers.map(({ kind }) => kind);
}

function testRefusal(what: string, sparse: SparseOptions, keyword: string): void {
  Deno.test(`resolvePolicy refuses ${what}`, () => {
    const error = assertThrows(() => resolvePolicy(sparse, NO_WINDOWS), PagesiftError);
    assertEquals(error.kind, "usage");
    assertStringIncludes(error.message, keyword);
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
    budgetPages: 128,
    scorer: "diag",
    lambda: 2,
    sinkPages: 1,
    recentPages: 2,
    onlyIfFaster: true,
    layers: [{ kind: "sparse" }, { kind: "sparse" }, { kind: "sparse" }],
    prefill: undefined,
  });
});

Deno.test("resolvePolicy has a default lambda for each scorer", () => {
  assertEquals(SCORERS.map((scorer) => resolvePolicy({ scorer }, NO_WINDOWS).lambda), [0.5, 2, 0, 0]);
});

Deno.test("resolvePolicy keeps a lambda of 0", () => {
  assertEquals(resolvePolicy({ lambda: 0 }, NO_WINDOWS).lambda, 0);
});

Deno.test("resolvePolicy counts the budget in pages of the chosen size", () => {
  assertEquals([8, 16, 32, 64].map((pageSize) => resolvePolicy({ pageSize }, NO_WINDOWS).budgetPages), [
    128,
    64,
    32,
    16,
  ]);
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

Deno.test("resolvePolicy keeps pages in groups of 8 at two levels, where the device scores groups", () => {
  assertEquals(resolvePolicy({ levels: 2 }, NO_WINDOWS, true).groupPages, 8);
});

Deno.test("resolvePolicy has two levels for diag and one for other scorers, unless the caller says", () => {
  const options = SCORERS.map((scorer) => ({ scorer }));
  assertEquals(options.map((sparse) => resolvePolicy(sparse, NO_WINDOWS, true).groupPages), [1, 8, 1, 1]);
});

Deno.test("resolvePolicy keeps single pages at one level, or where the device scores no groups", () => {
  assertEquals(resolvePolicy({ levels: 1 }, NO_WINDOWS, true).groupPages, 1);
  assertEquals([1, 2].map((levels) => resolvePolicy(untyped({ levels }), NO_WINDOWS, false).groupPages), [1, 1]);
});

Deno.test("resolvePolicy keeps groups in mode off, so that one pool serves both", () => {
  assertEquals(resolvePolicy({ mode: "off", levels: 2 }, NO_WINDOWS, true).groupPages, 8);
});

Deno.test("resolvePolicy selects the same layers and pages at one level and at two", () => {
  const policies = ([1, 2] as const).map((levels) => resolvePolicy({ levels, denseLayers: 1 }, [0, 48, 0], true));
  assertEquals(policies.map((policy) => ({ ...policy, groupPages: 0 }))[0], { ...policies[1], groupPages: 0 });
});

testRefusal(
  "a budget between two pages and names both neighbours",
  { budgetTokens: 100 },
  "the nearest is 96 or 104",
);
testRefusal(
  "a budget below one page and names the least",
  { budgetTokens: 63, pageSize: 64 },
  "the nearest is 64",
);
testRefusal("a budget of 0", { budgetTokens: 0 }, "the nearest is 8");
testRefusal("a negative budget", { budgetTokens: -8 }, "the nearest is 8");
testRefusal(
  "a broken budget",
  { budgetTokens: 64.5 },
  "the nearest is 64 or 72",
);
testRefusal("a budget that is no number", { budgetTokens: NaN }, "budget is NaN");
testRefusal("another page size", { pageSize: 24 }, "8, 16, 32, 64");
testRefusal(
  "an unknown mode",
  untyped({ mode: "yes" }),
  'mode "yes"',
);
testRefusal(
  "an unknown scorer",
  untyped({ scorer: "best" }),
  'Scorer "best"',
);
testRefusal("a negative lambda", { lambda: -0.5 }, "Lambda is -0.5");
testRefusal("an infinite lambda", { lambda: Infinity }, "Lambda is Infinity");
testRefusal("a negative sink", { sinkPages: -1 }, "sink pages is -1");
testRefusal("half a recent page", { recentPages: 0.5 }, "recent pages is 0.5");
testRefusal("NaN dense layers", { denseLayers: NaN }, "dense layers is NaN");

for (const levels of [0, 3, 1.5, NaN]) {
  testRefusal(`${levels} levels`, untyped({ levels }), `levels are ${levels}`);
}

Deno.test("exceedsBudget is false while all pages fit the budget", () => {
  const policy = resolvePolicy({ budgetTokens: 32, pageSize: 8 }, NO_WINDOWS);
  assertEquals([1, 25, 32].map((tokens) => exceedsBudget(policy, tokens)), [false, false, false]);
});

Deno.test("exceedsBudget is true from the first token of the first page too many", () => {
  const policy = resolvePolicy({ budgetTokens: 32, pageSize: 8 }, NO_WINDOWS);
  assertEquals([33, 40, 41].map((tokens) => exceedsBudget(policy, tokens)), [true, true, true]);
});

Deno.test("resolvePolicy reads prompts by tiles in prefill mode on, in all layers but those of windows and dense layers", () => {
  const { prefill } = resolvePolicy({ prefill: "on", denseLayers: 1 }, [0, 0, 512]);
  assertEquals(prefill, { budgetPages: 512, recentPages: 32, fromTokens: 0, layers: [false, true, false] });
});

Deno.test("resolvePolicy keeps prompts dense in prefill mode auto unless a budget is set", () => {
  assertEquals(resolvePolicy({ prefill: "auto" }, NO_WINDOWS).prefill, undefined);
  assertEquals(resolvePolicy({ prefill: "auto", prefillBudgetTokens: 1000 }, NO_WINDOWS).prefill?.fromTokens, 4096);
});

Deno.test("tileSelects from the first tile on that has more pages before it than the budget", () => {
  const policy = resolvePolicy({ prefill: "on", prefillBudgetTokens: 1024 }, NO_WINDOWS);
  assertEquals([0, 1024, 1031, 1032].map((position) => tileSelects(policy, position)), [false, false, false, true]);
});
