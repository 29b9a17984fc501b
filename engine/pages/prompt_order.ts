/** Tokens that two prompts have in common at their beginning. */
export function commonPrefix(one: readonly number[], other: readonly number[]): number {
  const most = Math.min(one.length, other.length);
  let length = 0;
  while (length < most && one[length] === other[length]) length++;
  return length;
}

function compare(one: readonly number[], other: readonly number[]): number {
  const common = commonPrefix(one, other);
  return (one[common] ?? -1) - (other[common] ?? -1);
}

/**
 * The order in which to run prompts: as given, but those that are mostly the same follow each other, so that their common pages are still
 * in the cache.
 */
export function byPrefix<T extends { promptIds: readonly number[] }>(prompts: readonly T[]): T[] {
  const sorted = prompts.map(({ promptIds }, index) => ({ promptIds, index })).sort((a, b) =>
    compare(a.promptIds, b.promptIds) || a.index - b.index
  );
  /** By the number of a prompt, the number of the first one of those that are mostly the same. */
  const leaders = new Array<number>(prompts.length);
  for (let first = 0; first < sorted.length;) {
    let end = first + 1;
    while (end < sorted.length && areAlike(sorted[end - 1]?.promptIds ?? [], sorted[end]?.promptIds ?? [])) end++;
    const indices = sorted.slice(first, end).map(({ index }) => index);
    const leader = Math.min(...indices);
    for (const index of indices) leaders[index] = leader;
    first = end;
  }
  const order = prompts.map((_, index) => index).sort((a, b) => (leaders[a] ?? a) - (leaders[b] ?? b) || a - b);
  return order.flatMap((index) => prompts[index] ?? []);
}

/** Whether the shorter of two prompts consists mostly of what they have in common. */
function areAlike(one: readonly number[], other: readonly number[]): boolean {
  return 2 * commonPrefix(one, other) > Math.min(one.length, other.length);
}

/** Tokens of all prompts together, with `longest` tokens each, if what they have in common at their beginning counts once. */
export function distinctTokens(prompts: readonly { promptIds: readonly number[]; longest: number }[]): number {
  const sorted = prompts.toSorted((a, b) => compare(a.promptIds, b.promptIds));
  return sorted.reduce((sum, { promptIds, longest }, index) => {
    const before = sorted[index - 1];
    return sum + longest - (before ? commonPrefix(before.promptIds, promptIds) : 0);
  }, 0);
}
