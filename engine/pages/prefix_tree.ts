import type { PageAllocator, Retainer } from "./page_table.ts";
import { commonPrefix } from "./prompt_order.ts";

/**
 * Tokens of a prompt that are always computed, and the least of a prefill chunk where a prompt has as many. Products of fewer tokens add up in
 * another order, and those of up to 16 round less with AMX, so with less a prompt that begins with known tokens could differ in its last bits from the
 * same prompt alone.
 */
export const MIN_CHUNK_TOKENS = 17;

/** A group of pages, and the tokens in it. The tokens before it are those of its parents. */
interface Block {
  readonly parent: Block | undefined;
  readonly ids: readonly number[];
  /** First physical page of the group. */
  readonly page: number;
  readonly children: Block[];
  /** How its keys and values were computed. */
  readonly reading: string;
}

/** How prompts are read, which their keys and values depend on. */
export interface PromptReading {
  /** Prompts with different names share nothing. */
  name: string;
  /** What prompts share ends at a multiple of this many tokens. */
  multiple: number;
}

/** All pages, in any pieces. */
const DENSE: PromptReading = { name: "", multiple: 1 };

/** A block outside a tree. */
export interface KnownBlock {
  ids: readonly number[];
  /** First physical page of the group. */
  page: number;
  /** Place of its parent in the list of blocks; undefined for the first tokens of a sequence. */
  parent: number | undefined;
  /** Name of the {@link PromptReading}. */
  reading: string;
}

/** Pages of earlier sequences by their tokens, so that a sequence that begins alike need not compute them again. */
export class PrefixTree implements Retainer {
  readonly #roots: Block[] = [];
  /** All blocks, the least recently used first and every block before its parent. */
  readonly #byUse = new Set<Block>();
  /** How the next prompts are read; {@link find} and {@link add} are about those that were read like this. */
  reading: PromptReading = DENSE;

  constructor(readonly allocator: PageAllocator, readonly pageSize: number) {
    allocator.retainer = this;
  }

  /** Number of blocks. */
  get size(): number {
    return this.#byUse.size;
  }

  /** Tokens of a block; sequences share whole blocks. */
  get blockTokens(): number {
    return this.pageSize * this.allocator.groupPages;
  }

  /** The physical pages, in logical order, of the longest known beginning of a prompt. */
  find(ids: readonly number[]): number[] {
    const path = this.#sharedPath(ids);
    this.#use(path.at(-1));
    return path.flatMap(({ page }) => Array.from({ length: this.allocator.groupPages }, (_, index) => page + index));
  }

  /** Tokens of that beginning. */
  countKnown(ids: readonly number[]): number {
    return this.#sharedPath(ids).length * this.blockTokens;
  }

  /** Tokens that a prompt could begin with if all of another one were known. */
  countCommon(ids: readonly number[], other: readonly number[]): number {
    const most = Math.min(commonPrefix(ids, other), ids.length - MIN_CHUNK_TOKENS);
    let blocks = Math.max(0, Math.floor(most / this.blockTokens));
    while (blocks * this.blockTokens % this.reading.multiple > 0) blocks--;
    return blocks * this.blockTokens;
  }

  /** Pages of that beginning that sequences already use, and that cost nothing to use again. */
  countUsed(ids: readonly number[]): number {
    const path = this.#sharedPath(ids);
    return path.filter(({ page }) => !this.allocator.isIdle(page)).length * this.allocator.groupPages;
  }

  /** Remembers the whole blocks among the first `length` tokens of a sequence. */
  add(ids: readonly number[], pages: readonly number[], length: number): void {
    const path = this.#path(ids, length);
    let parent = path.at(-1);
    for (let depth = path.length; (depth + 1) * this.blockTokens <= length; depth++) {
      const page = pages[depth * this.allocator.groupPages];
      if (page === undefined) break;
      const own = ids.slice(depth * this.blockTokens, (depth + 1) * this.blockTokens);
      parent = this.#append(parent, own, page);
    }
    this.#use(parent);
  }

  /** Everything that the tree holds, the latest used first and parents before their children. */
  blocks(): KnownBlock[] {
    const all = [...this.#byUse].reverse();
    const numbers = new Map(all.map((block, index) => [block, index]));
    return all.map(({ parent, ids, page, reading }) => ({ ids, page, reading, parent: parent && numbers.get(parent) }));
  }

  /** Adds what {@link blocks} of another tree gave, to an empty tree. */
  addBlocks(known: readonly KnownBlock[]): void {
    const added: Block[] = [];
    for (const { ids, page, parent, reading } of known) {
      added.push(this.#append(parent === undefined ? undefined : added[parent], ids, page, reading));
    }
    for (const block of added.toReversed()) this.#byUse.add(block);
  }

  /** Gives up the least recently used group that no sequence uses. */
  giveUpOne(): void {
    for (const block of this.#byUse) {
      // A sequence that uses a block uses its parents, so an idle block without idle children has none.
      if (!this.allocator.isIdle(block.page)) continue;
      const siblings = block.parent?.children ?? this.#roots;
      siblings.splice(siblings.indexOf(block), 1);
      this.#byUse.delete(block);
      this.allocator.giveUp(block.page);
      return;
    }
  }

  #append(parent: Block | undefined, ids: readonly number[], page: number, reading = this.reading.name): Block {
    const block: Block = { parent, ids, page, reading, children: [] };
    (parent?.children ?? this.#roots).push(block);
    this.allocator.retain(page);
    return block;
  }

  /** What a prompt can begin with. */
  #sharedPath(ids: readonly number[]): Block[] {
    const path = this.#path(ids, ids.length - MIN_CHUNK_TOKENS);
    while (path.length * this.blockTokens % this.reading.multiple > 0) path.pop();
    return path;
  }

  #path(ids: readonly number[], maxTokens: number): Block[] {
    const path: Block[] = [];
    let candidates: readonly Block[] = this.#roots.filter(({ reading }) => reading === this.reading.name);
    for (let first = 0; first + this.blockTokens <= Math.min(maxTokens, ids.length); first += this.blockTokens) {
      const block = candidates.find(({ ids: own }) => own.every((id, index) => id === ids[first + index]));
      if (!block) break;
      path.push(block);
      candidates = block.children;
    }
    return path;
  }

  /** Makes a block and its parents the most recently used. */
  #use(last: Block | undefined): void {
    for (let block = last; block; block = block.parent) {
      this.#byUse.delete(block);
      this.#byUse.add(block);
    }
  }
}
