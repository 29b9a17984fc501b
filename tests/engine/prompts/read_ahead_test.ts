import { assertEquals } from "@std/assert";
import { readAhead } from "../../../engine/prompts/read_ahead.ts";

const buffers = (count: number): Uint8Array<ArrayBuffer>[] => Array.from({ length: count }, () => new Uint8Array(1));

Deno.test("Items arrive in their order, although later reads may end first", async () => {
  const read = async (item: number, buffer: Uint8Array): Promise<Uint8Array> => {
    await new Promise((resolve) => setTimeout(resolve, item % 2 === 0 ? 4 : 0));
    buffer[0] = item;
    return buffer;
  };
  const seen: [number, number | undefined][] = [];
  for await (const [item, result] of readAhead([0, 1, 2, 3, 4, 5, 6], buffers(3), read)) seen.push([item, result[0]]);
  assertEquals(seen, Array.from({ length: 7 }, (_, item) => [item, item]));
});

Deno.test("As many reads are under way as there are buffers", async () => {
  let [active, most] = [0, 0];
  const read = async (): Promise<void> => {
    most = Math.max(most, ++active);
    await new Promise((resolve) => setTimeout(resolve, 1));
    active--;
  };
  for await (const _ of readAhead([1, 2, 3, 4, 5, 6], buffers(3), read));
  assertEquals(most, 3);
});

Deno.test("A caller that leaves early waits for the reads under way and starts no others", async () => {
  let [started, ended] = [0, 0];
  const read = async (): Promise<void> => {
    started++;
    await new Promise((resolve) => setTimeout(resolve, 2));
    ended++;
  };
  for await (const _ of readAhead([1, 2, 3, 4, 5, 6], buffers(3), read)) break;
  assertEquals([started, ended], [3, 3]);
});

Deno.test("No items need no buffers", async () => {
  const seen = await Array.fromAsync(readAhead([], [], () => Promise.resolve()));
  assertEquals(seen, []);
});
