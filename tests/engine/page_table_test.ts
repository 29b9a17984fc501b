import { assertEquals, assertThrows } from "@std/assert";
import { PageAllocator, pagesFor } from "../../engine/page_table.ts";

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
