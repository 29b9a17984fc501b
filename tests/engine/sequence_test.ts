import { assertEquals, assertThrows } from "@std/assert";
import { PageAllocator } from "../../engine/page_table.ts";
import { Sequence } from "../../engine/sequence.ts";

const PAGE_SIZE = 8;

/** A sequence of this many tokens in a pool of four pages, of which page 0 belongs to somebody else. */
function makeSequence(tokens: number): Sequence {
  const allocator = new PageAllocator(4);
  allocator.allocate();
  const sequence = new Sequence(allocator, PAGE_SIZE);
  sequence.extend(tokens);
  return sequence;
}

Deno.test("Sequence.extend gives slots that run on across page borders", () => {
  const sequence = makeSequence(6);
  assertEquals([...sequence.extend(4)], [14, 15, 16, 17]);
  assertEquals([sequence.length, ...sequence.pages], [10, 1, 2]);
});

Deno.test("Sequence.extend gives slots of the physical pages, wherever these lie", () => {
  const allocator = new PageAllocator(4);
  const [first, second] = [new Sequence(allocator, PAGE_SIZE), new Sequence(allocator, PAGE_SIZE)];
  first.extend(8);
  second.extend(8);
  assertEquals([...first.extend(2)], [16, 17]);
  assertEquals(first.pages, [0, 2]);
});

Deno.test("Sequence.extend takes no page while the last one has room", () => {
  const sequence = makeSequence(7);
  sequence.extend(1);
  assertEquals(sequence.pages, [1]);
});

Deno.test("Sequence.extend beyond the pool throws and leaves sequence and pool as they were", () => {
  const sequence = makeSequence(10);
  assertThrows(() => sequence.extend(15), RangeError, "2 pages wanted, 1 of 4 free");
  assertEquals([sequence.length, sequence.pages.length, sequence.allocator.numFree], [10, 2, 1]);
  assertEquals(sequence.extend(14).length, 14);
});

Deno.test("Sequence.truncate gives the pages behind the cut back", () => {
  const sequence = makeSequence(20);
  sequence.truncate(8);
  assertEquals([sequence.length, sequence.allocator.numFree], [8, 2]);
  assertEquals(sequence.pages, [1]);
});

Deno.test("Sequence.truncate names the page that now holds fewer tokens", () => {
  assertEquals(makeSequence(20).truncate(11), { page: 2, numTokens: 3 });
});

Deno.test("Sequence.truncate names no page when the cut falls on a page border", () => {
  assertEquals([makeSequence(20).truncate(16), makeSequence(20).truncate(0)], [undefined, undefined]);
});

Deno.test("Sequence.truncate refuses lengths that the sequence does not have", () => {
  const sequence = makeSequence(10);
  for (const length of [-1, 11]) {
    assertThrows(() => sequence.truncate(length), RangeError, `Cannot truncate a sequence of 10 tokens to ${length}`);
  }
  assertEquals(sequence.length, 10);
});

Deno.test("Sequence.extend after a truncation reuses the same slots", () => {
  const sequence = makeSequence(10);
  const slots = sequence.extend(10);
  sequence.truncate(10);
  assertEquals(sequence.extend(10), slots);
});

Deno.test("Sequence.release gives all pages back, and twice does no harm", () => {
  const sequence = makeSequence(20);
  sequence.release();
  sequence.release();
  assertEquals([sequence.length, sequence.pages.length, sequence.allocator.numFree], [0, 0, 3]);
});
