import type { CacheShape } from "../../ffi/structs.ts";

/** What keys and values are stored in: `auto` is the 16-bit or 32-bit type of the model; `q8` and `fp8` take half the memory of 16 bits. */
export type KvType = "auto" | "bf16" | "q8" | "fp8";

export const KV_TYPES: readonly KvType[] = ["auto", "bf16", "q8", "fp8"];

/** The types of a cache: of page statistics, and of keys and values where those have 8 bits. */
export type KvFormat = Pick<CacheShape, "dtype" | "kvType">;

/** The types of a cache for a model whose keys and values are computed as `own`. */
export function kvFormat(type: KvType, own: CacheShape["dtype"]): KvFormat {
  if (type === "auto") return { dtype: own };
  return type === "bf16" ? { dtype: "bf16" } : { dtype: own, kvType: type };
}

/** The type of keys and values as people know it. */
export function kvName({ dtype, kvType }: KvFormat): string {
  return kvType ?? dtype;
}

/** Bytes of the key, or of the value, of one token and KV head. */
export function kvRowBytes({ dtype, kvType }: KvFormat, headDim: number): number {
  const scaleBytes = 4;
  return kvType ? headDim + scaleBytes : headDim * (dtype === "f32" ? 4 : 2);
}
