import { assertEquals } from "@std/assert";
import { PageAllocator } from "../../../engine/pages/page_table.ts";
import { MIN_CHUNK_TOKENS, PrefixTree } from "../../../engine/pages/prefix_tree.ts";

const PAGE_SIZE = 8;

/** Ids from `first` on. */
function ids(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}

/** A tree over this many pages. */
function makeTree(numPages = 16, groupPages = 1): { allocator: PageAllocator; tree: PrefixTree } {
  const allocator = new PageAllocator(numPages, groupPages);
  return { allocator, tree: new PrefixTree(allocator, PAGE_SIZE) };
}

/** Adds a prompt as a sequence that then ends. Returns its pages. */
function remember({ allocator, tree }: ReturnType<typeof makeTree>, prompt: readonly number[]): number[] {
  const known = tree.find([...prompt, ...ids(9000, MIN_CHUNK_TOKENS)]);
  allocator.share(known);
  const pages = [...known];
  while (pages.length * PAGE_SIZE < prompt.length) pages.push(allocator.allocate());
  tree.add(prompt, pages, prompt.length);
  allocator.free(pages);
  return pages;
}

const REST = ids(9000, MIN_CHUNK_TOKENS);

Deno.test("PrefixTree.find gives the whole pages that a prompt has in common with an earlier one", () => {
  const made = makeTree();
  const pages = remember(made, ids(0, 40));
  assertEquals(made.tree.find([...ids(0, 30), ...REST]), pages.slice(0, 3));
  assertEquals(made.tree.find([...ids(1, 30), ...REST]), []);
});

Deno.test("PrefixTree.find leaves the last tokens of a prompt to be computed", () => {
  const made = makeTree();
  const pages = remember(made, ids(0, 40));
  assertEquals(made.tree.find(ids(0, 40)), pages.slice(0, Math.floor((40 - MIN_CHUNK_TOKENS) / PAGE_SIZE)));
});

Deno.test("PrefixTree.find leaves more tokens than those that AMX multiplies unlike the rest", () => {
  const made = makeTree();
  const pages = remember(made, ids(0, 48));
  assertEquals(made.tree.find(ids(0, 48 + 16)), pages.slice(0, 5));
  assertEquals(made.tree.find(ids(0, 48 + 17)), pages);
});

Deno.test("PrefixTree shares whole groups of pages only", () => {
  const { allocator, tree } = makeTree(16, 8);
  const prompt = ids(0, 64 + 40);
  const groups = [allocator.allocate(), allocator.allocate()];
  tree.add(prompt, groups.flatMap((first) => ids(first, 8)).slice(0, 13), prompt.length);
  assertEquals(tree.find([...prompt, ...REST]), ids(0, 8));
});

Deno.test("PrefixTree keeps two prompts that begin alike in the pages of one and the rest of the other", () => {
  const made = makeTree();
  const first = remember(made, ids(0, 24));
  const second = remember(made, [...ids(0, 16), ...ids(500, 8)]);
  assertEquals(second.slice(0, 2), first.slice(0, 2));
  assertEquals(made.tree.size, 4);
});

Deno.test("Pages that only the tree holds count as free, and the least recently used go first", () => {
  const made = makeTree(4);
  remember(made, ids(0, 16));
  remember(made, ids(100, 16));
  made.tree.find([...ids(0, 16), ...REST]);
  assertEquals(made.allocator.numFree, 4);
  made.allocator.allocate();
  assertEquals(made.tree.find([...ids(0, 16), ...REST]).length, 2);
  assertEquals(made.tree.find([...ids(100, 16), ...REST]).length, 1);
});

Deno.test("The tree never gives up a page that a sequence uses", () => {
  const made = makeTree(4);
  const [page = -1] = remember(made, ids(0, 8));
  made.allocator.share([page]);
  remember(made, ids(100, 24));
  const taken = [made.allocator.allocate(), made.allocator.allocate(), made.allocator.allocate()];
  assertEquals(taken.includes(page), false);
  assertEquals([made.allocator.numFree, made.tree.size], [0, 1]);
});

Deno.test("PrefixTree.addBlocks rebuilds what blocks() describes, in its order of use", () => {
  const from = makeTree(8);
  remember(from, ids(0, 16));
  remember(from, [...ids(0, 8), ...ids(300, 8)]);
  const to = makeTree(8);
  const known = from.tree.blocks();
  const pages = known.map(() => to.allocator.allocate());
  to.tree.addBlocks(known.map((block, index) => ({ ...block, page: pages[index]! })));
  to.allocator.free(pages);
  assertEquals(to.tree.find([...ids(0, 16), ...REST]).length, 2);
  assertEquals(to.tree.blocks().map(({ ids }) => ids[0]), [0, 8, 300]);
});
