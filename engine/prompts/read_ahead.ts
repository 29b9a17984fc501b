/**
 * Reads items in their order, as many at once as there are buffers, while the caller works on an earlier one. A buffer is used again when
 * the caller takes its next turn. All reads have ended when the generator has, also if the caller leaves early.
 *
 * @param read fills (a part of) the buffer
 */
export async function* readAhead<Item, Read>(
  items: readonly Item[],
  buffers: readonly Uint8Array<ArrayBuffer>[],
  read: (item: Item, buffer: Uint8Array<ArrayBuffer>) => Promise<Read>,
): AsyncGenerator<readonly [Item, Read]> {
  const rest = items.values();
  const start = async (buffer: Uint8Array<ArrayBuffer>): Promise<readonly [Item, Read] | undefined> => {
    const { value, done } = rest.next();
    return done ? undefined : [value, await read(value, buffer)];
  };
  const reads = buffers.map(start);
  try {
    for (let turn = 0;; turn = (turn + 1) % buffers.length) {
      const result = await reads[turn];
      if (!result) return;
      yield result;
      const buffer = buffers[turn];
      if (buffer) reads[turn] = start(buffer);
    }
  } finally {
    await Promise.allSettled(reads);
  }
}
