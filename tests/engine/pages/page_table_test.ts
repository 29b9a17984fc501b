import { assertEquals, assertThrows } from "@std/assert";
import { PageAllocator, pagesFor, pagesTaken } from "../../../engine/pages/page_table.ts";

function allocate(allocator: PageAllocator, count: number): number[] {
  return Array.from({ length: count }, () => allocator.allocate());
}

Deno.test("PageAllocator hands out low pages first", () => {
  assertEquals(allocate(new PageAllocator(5), 4), [0, 1, 2, 3]);
});

Deno.test("PageAllocator hands out freed pages again before fresh ones", () => {
  const allocator = new PageAllocator(5);
  allocate(allocator, 4);
  allocator.free([1, 2]);
  assertEquals(allocate(allocator, 3), [1, 2, 4]);
});

Deno.test("PageAllocator counts free and used pages", () => {
  const allocator = new PageAllocator(5);
  allocate(allocator, 3);
  allocator.free([2]);
  assertEquals([allocator.numFree, allocator.numUsed], [3, 2]);
});

Deno.test("PageAllocator remembers the most pages that were in use at once", () => {
  const allocator = new PageAllocator(5);
  allocator.free(allocate(allocator, 4));
  allocate(allocator, 2);
  assertEquals(allocator.peakUsed, 4);
});

Deno.test("PageAllocator.resetPeak starts from the pages in use", () => {
  const allocator = new PageAllocator(5);
  const pages = allocate(allocator, 4);
  allocator.free(pages.slice(1));
  allocator.resetPeak();
  assertEquals(allocator.peakUsed, 1);
});

Deno.test("PageAllocator throws when no page is free and stays as it was", () => {
  const allocator = new PageAllocator(2);
  allocate(allocator, 2);
  assertThrows(() => allocator.allocate(), RangeError, "No free page: all 2 pages of the KV pool are in use");
  assertEquals([allocator.numUsed, allocator.numFree, allocator.peakUsed], [2, 0, 2]);
  allocator.free([1]);
  assertEquals(allocator.allocate(), 1);
});

Deno.test("pagesFor counts a page of one token as a page", () => {
  assertEquals([0, 1, 8, 9, 16, 17].map((tokens) => pagesFor(tokens, 8)), [0, 1, 1, 2, 2, 3]);
});

Deno.test("PageAllocator hands out groups by their first pages", () => {
  const allocator = new PageAllocator(24, 8);
  assertEquals(allocate(allocator, 3), [0, 8, 16]);
  assertEquals([allocator.numUsed, allocator.numFree, allocator.peakUsed], [24, 0, 24]);
});

Deno.test("PageAllocator hands out freed groups again before fresh ones, in their order", () => {
  const allocator = new PageAllocator(40, 8);
  allocate(allocator, 4);
  allocator.free([8, 24]);
  assertEquals(allocate(allocator, 3), [8, 24, 32]);
});

Deno.test("PageAllocator counts all pages of a group as used", () => {
  const allocator = new PageAllocator(24, 8);
  allocate(allocator, 2);
  allocator.free([8]);
  assertEquals([allocator.numFree, allocator.numUsed, allocator.peakUsed], [16, 8, 16]);
});

Deno.test("PageAllocator throws when no group is free and stays as it was", () => {
  const allocator = new PageAllocator(16, 8);
  allocate(allocator, 2);
  assertThrows(() => allocator.allocate(), RangeError, "No free page: all 16 pages of the KV pool are in use");
  assertEquals([allocator.numUsed, allocator.numFree, allocator.peakUsed], [16, 0, 16]);
  allocator.free([8]);
  assertEquals(allocator.allocate(), 8);
});

Deno.test("PageAllocator refuses pages that do not make whole groups", () => {
  assertThrows(() => new PageAllocator(20, 8), RangeError, "20 pages do not make groups of 8");
});

Deno.test("pagesTaken counts whole groups", () => {
  assertEquals([0, 1, 64, 65, 128, 129].map((tokens) => pagesTaken(tokens, 8, 8)), [0, 8, 8, 16, 16, 24]);
});

Deno.test("pagesTaken without groups counts pages", () => {
  assertEquals([0, 1, 8, 9].map((tokens) => pagesTaken(tokens, 8, 1)), [0, 1, 1, 2]);
});
