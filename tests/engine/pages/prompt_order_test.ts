import { assertEquals } from "@std/assert";
import { byPrefix, distinctTokens } from "../../../engine/pages/prompt_order.ts";

const DOCUMENT = Array.from({ length: 100 }, (_, index) => index);
const OTHER = DOCUMENT.map((id) => id + 1000);

function prompts(...all: number[][]): { promptIds: number[]; name: number }[] {
  return all.map((promptIds, name) => ({ promptIds, name }));
}

Deno.test("byPrefix brings prompts about one document together and keeps the order otherwise", () => {
  const given = prompts([7], [...DOCUMENT, 1], [...OTHER, 1], [8], [...DOCUMENT, 2], [...OTHER, 2]);
  assertEquals(byPrefix(given).map(({ name }) => name), [0, 1, 4, 2, 5, 3]);
});

Deno.test("byPrefix keeps the order of prompts that have only a short beginning in common", () => {
  const given = prompts([1, 2, 9, 9, 9, 9], [1, 2, 3, 3, 3, 3], [1, 2, 6, 6, 6, 6]);
  assertEquals(byPrefix(given).map(({ name }) => name), [0, 1, 2]);
});

Deno.test("distinctTokens counts a common beginning once", () => {
  const given = [[...DOCUMENT, 1, 2], [...DOCUMENT, 3], [5]].map((promptIds) => ({
    promptIds,
    longest: promptIds.length + 10,
  }));
  assertEquals(distinctTokens(given), 112 + 11 + 11);
});
