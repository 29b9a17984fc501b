/** What a KV cache holds, read back whole. */
import type { CacheField, KvCache } from "../../ffi/kv_cache.ts";
import { assertSameBits } from "./compare.ts";

const FIELDS: readonly CacheField[] = ["keys", "values", "mean", "std", "var", "min", "max"];

/** All that the cache holds of the pages of a layer, the unused places of keys and values left out. */
export function contents(
  cache: KvCache,
  table: readonly number[],
  tokens: number,
  layer = 0,
): Float32Array<ArrayBuffer>[] {
  const { pageSize, headDim } = cache.shape;
  return table.flatMap((page, index) =>
    FIELDS.map((field) => {
      const held = Math.min(pageSize, tokens - index * pageSize);
      const numbers = cache.readPage(layer, page, field);
      return field === "keys" || field === "values"
        ? numbers.filter((_, i) => Math.floor(i / headDim) % pageSize < held)
        : numbers;
    })
  );
}

export function assertSameContents(found: Float32Array<ArrayBuffer>[], wanted: Float32Array<ArrayBuffer>[]): void {
  found.forEach((numbers, i) => assertSameBits(numbers, wanted[i]!));
}
