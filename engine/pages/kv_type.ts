import type { CacheShape, Counters } from "../../ffi/structs.ts";
import type { Scorer } from "../types.ts";

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
  return kvType ? headDim + scaleBytes : headDim * numberBytes(dtype);
}

/** Bytes that scoring one page reads in one layer and KV head. */
export function statisticsRowBytes(scorer: Scorer, headDim: number, dtype: CacheShape["dtype"]): number {
  const vectors = scorer === "diag" || scorer === "quest" ? 2 : 1;
  return vectors * headDim * numberBytes(dtype) + (scorer === "unique" ? 4 : 0);
}

/** Bytes that scoring the coarse copy of one page reads in one layer and KV head. */
function copyRowBytes(scorer: Scorer, headDim: number): number {
  const scaleBytes = 4;
  if (scorer !== "diag") return headDim + scaleBytes + 4;
  const codeBytes = 4 * (headDim <= 64 ? 4 : headDim <= 128 ? 8 : 16);
  return headDim + codeBytes + scaleBytes;
}

/** Bytes of statistics that scoring read in caches of these types, by the counters. */
export function scoredBytes(
  scorer: Scorer,
  { headDim, dtype }: Pick<CacheShape, "headDim" | "dtype">,
  { pagesScored, copiesScored }: Pick<Counters, "pagesScored" | "copiesScored">,
): number {
  return pagesScored * statisticsRowBytes(scorer, headDim, dtype) + copiesScored * copyRowBytes(scorer, headDim);
}

/** Bytes per number. */
function numberBytes(dtype: CacheShape["dtype"]): number {
  return dtype === "f32" ? 4 : 2;
}
