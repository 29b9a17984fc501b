import { assertEquals, assertThrows } from "@std/assert";
import { checkBudgets, checkExceeds, parseCounts, parseHeads, parseWords } from "../../bench/lists.ts";
import { PagesiftError } from "../../engine/errors.ts";

function refuses(name: string, work: () => unknown, message: string): void {
  Deno.test(name, () => {
    assertEquals(assertThrows(work, PagesiftError, message).kind, "usage");
  });
}

Deno.test("parseCounts() takes k as 1,024 and m as 1,048,576, in either case", () => {
  assertEquals(parseCounts("-d", "0,4k,2K,1m", 0), [0, 4096, 2048, 1_048_576]);
});

Deno.test("parseCounts() returns a repeated value once", () => {
  assertEquals(parseCounts("-d", "1k,1024", 0), [1024]);
});

refuses("parseCounts() refuses an empty list", () => parseCounts("--context", "", 1), "--context is empty");
refuses("parseCounts() refuses an empty item", () => parseCounts("-d", "1,,2", 0), '"1,,2"');
refuses("parseCounts() refuses what is not a number", () => parseCounts("-d", "4x", 0), '"4x"');
refuses("parseCounts() refuses a number below the least", () => parseCounts("--batch", "0", 1), "from 1 to");
refuses("parseCounts() refuses a number past 31 bits", () => parseCounts("--batch", "4096m", 1), "to 2147483647");
refuses("parseWords() lists what it knows", () => parseWords("--scorer", "best", ["unique", "mean"]), "unique, mean");

Deno.test("parseHeads() splits query and KV heads", () => {
  assertEquals(parseHeads("--heads", "32/8,4/4"), [{ queryHeads: 32, kvHeads: 8 }, { queryHeads: 4, kvHeads: 4 }]);
});

refuses("parseHeads() names the nearest that divide", () => parseHeads("--heads", "33/8"), "32/8 and 40/8");
refuses("parseHeads() refuses no heads", () => parseHeads("--heads", "0/8"), "such as 32/8");
refuses("checkBudgets() names the nearest multiples", () => checkBudgets([8], [500], [8]), "496 and 504");
refuses("checkBudgets() names the smallest budget", () => checkBudgets([16], [8], [8, 16]), "the smallest is 16");
refuses("checkBudgets() refuses an unknown page size", () => checkBudgets([12], [24], [8, 16]), "8, 16");
refuses("checkExceeds() refuses a context within the budget", () => checkExceeds("--context", 512, [512], [8]), "513");

Deno.test("checkExceeds() takes a context of one token more than the budget", () => {
  checkExceeds("--context", 513, [512], [8]);
});
