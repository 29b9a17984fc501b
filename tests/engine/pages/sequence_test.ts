import { assertEquals, assertThrows } from "@std/assert";
import { PageAllocator } from "../../../engine/pages/page_table.ts";
import { Sequence } from "../../../engine/pages/sequence.ts";

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
  assertThrows(() => sequence.extend(15), RangeError, "1 of 4 free");
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
  assertEquals(makeSequence(20).truncate(11), { tail: { page: 2, numTokens: 3 } });
});

Deno.test("Sequence.truncate names no page when the cut falls on a page border", () => {
  assertEquals([makeSequence(20).truncate(16), makeSequence(20).truncate(0)], [{}, {}]);
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

/** Two sequences in a pool of four groups of 8 pages. */
function makeGrouped(): { allocator: PageAllocator; first: Sequence; second: Sequence } {
  const allocator = new PageAllocator(32, 8);
  return { allocator, first: new Sequence(allocator, PAGE_SIZE), second: new Sequence(allocator, PAGE_SIZE) };
}

/** The numbers from `first` to `last`. */
function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

Deno.test("Sequence.extend fills the neighbours of a group before it takes another", () => {
  const { allocator, first, second } = makeGrouped();
  first.extend(9);
  second.extend(1);
  first.extend(7 * PAGE_SIZE); // its ninth page begins
  assertEquals([first.pages, second.pages], [[...range(0, 7), 16], [8]]);
  assertEquals(allocator.numUsed, 24);
});

Deno.test("Sequence.extend gives slots that run on through a group and jump to the next", () => {
  const { first, second } = makeGrouped();
  first.extend(62);
  second.extend(1);
  assertEquals([...first.extend(4)], [62, 63, 128, 129]);
});

Deno.test("Sequence.extend of several groups at once takes each as one piece", () => {
  const { allocator, first, second } = makeGrouped();
  second.extend(1);
  second.release();
  allocator.allocate(); // group 0 is somebody else's
  first.extend(17 * PAGE_SIZE);
  assertEquals(first.pages, range(8, 24));
});

Deno.test("Sequence.extend beyond the groups throws and leaves sequence and pool as they were", () => {
  const { allocator, first, second } = makeGrouped();
  first.extend(65);
  second.extend(1);
  const before = [...first.pages];
  assertThrows(() => first.extend(129), RangeError, "8 of 32 free");
  assertEquals([first.length, [...first.pages], allocator.numFree], [65, before, 8]);
  assertEquals(first.extend(127).length, 127); // what its second group still holds, and the last one
  assertEquals([first.pages.length, allocator.numFree], [24, 0]);
});

Deno.test("Sequence.extend takes the pages left in its last group when no group is free", () => {
  const { allocator, first } = makeGrouped();
  first.extend(8);
  while (allocator.numFree > 0) allocator.allocate();
  assertEquals(first.extend(56).length, 56);
  assertThrows(() => first.extend(1), RangeError, "0 of 32 free");
  assertEquals(first.length, 64);
});

Deno.test("Sequence.truncate inside a group keeps the group", () => {
  const { allocator, first } = makeGrouped();
  first.extend(120); // 15 pages
  assertEquals(first.truncate(75), { tail: { page: 9, numTokens: 3 } });
  assertEquals([first.pages, allocator.numUsed], [range(0, 9), 16]);
});

Deno.test("Sequence.truncate frees a group once its first page goes", () => {
  const { allocator, first } = makeGrouped();
  first.extend(120);
  first.truncate(65);
  assertEquals(allocator.numUsed, 16);
  first.truncate(64);
  assertEquals([first.pages, allocator.numUsed], [range(0, 7), 8]);
  first.truncate(1);
  assertEquals([first.pages, allocator.numUsed], [[0], 8]);
  first.truncate(0);
  assertEquals(allocator.numUsed, 0);
});

Deno.test("Sequence.truncate frees every group behind the cut once", () => {
  const { allocator, first, second } = makeGrouped();
  first.extend(4 * 64);
  first.truncate(10);
  assertEquals(allocator.numFree, 24);
  second.extend(3 * 64);
  assertEquals([second.pages, allocator.numFree], [range(8, 31), 0]);
});

Deno.test("Sequence.extend after a truncation reuses the same slots of the same groups", () => {
  const { first } = makeGrouped();
  first.extend(10);
  const slots = first.extend(180);
  first.truncate(10);
  assertEquals(first.extend(180), slots);
});

Deno.test("Sequence.release gives all groups back, the part empty one too", () => {
  const { allocator, first } = makeGrouped();
  first.extend(65);
  first.release();
  first.release();
  assertEquals([first.length, first.pages.length, allocator.numFree], [0, 0, 32]);
});

/** A sequence of three full groups, and one that begins with all of them. */
function makeShared(): { allocator: PageAllocator; first: Sequence; second: Sequence } {
  const { allocator, first, second } = makeGrouped();
  first.extend(3 * 64);
  second.adopt(first.pages, first.length);
  return { allocator, first, second };
}

Deno.test("Sequence.adopt shares groups, which count once and stay until the last sequence leaves them", () => {
  const { allocator, first, second } = makeShared();
  assertEquals([second.length, second.pages, allocator.numUsed], [192, first.pages, 24]);
  first.release();
  assertEquals(allocator.numUsed, 24);
  second.release();
  assertEquals([allocator.numUsed, allocator.numFree], [0, 32]);
});

Deno.test("Sequence.extend after whole shared groups takes a group of its own", () => {
  const { first, second } = makeShared();
  assertEquals([...second.extend(1)], [24 * PAGE_SIZE]);
  assertEquals(first.pages, range(0, 23));
});

Deno.test("Sequence.truncate inside a shared group replaces it, and the other sequence keeps its pages", () => {
  const { allocator, first, second } = makeShared();
  assertEquals(second.truncate(64 + 9), { copy: { from: 8, to: 24 }, tail: { page: 25, numTokens: 1 } });
  assertEquals([second.pages, first.pages], [[...range(0, 7), 24, 25], range(0, 23)]);
  first.release();
  assertEquals(allocator.numUsed, 16);
});

Deno.test("Sequence.truncate to a page border inside a shared group replaces the group", () => {
  assertEquals(makeShared().second.truncate(64 + 8), { copy: { from: 8, to: 24 } });
});

Deno.test("Sequence.truncate to the end of a shared group replaces nothing", () => {
  assertEquals(makeShared().second.truncate(64), {});
});

Deno.test("Sequence.adopt refuses a sequence that has tokens", () => {
  const { first, second } = makeShared();
  assertThrows(() => second.adopt(first.pages, first.length), RangeError, "192 tokens");
});
