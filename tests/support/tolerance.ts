/**
 * How far an operation may be from its reference. The CPU build computes with numbers of 32 bits, except on arm64 with bf16 instructions,
 * where `matmul` of more than 256 tokens with bf16 weights rounds its input to bf16, and with AMX:
 *
 * - `matmul` of 17 to 256 tokens with bf16 weights takes its input in two parts of bf16, and rounds it to bf16 for more tokens;
 * - `attendPrefill` over pages that are not f32 rounds queries, keys, values and probabilities to bf16; their powers of two are computed to
 *   7.5e-5, a 26th of that rounding.
 *
 * The CUDA build differs in the products that go through tensor cores of 16 bits, and only there:
 *
 * - `matmul` of more than 8 tokens rounds its input to the type of the weights, but for 129 to 256 tokens, where it takes two parts;
 * - `attendPrefill` over pages of 16 bits rounds queries and probabilities to their type, with head sizes that tensor cores take;
 * - `attendPrefill` over pages of 8 bits rounds keys and values to the type of the statistics;
 * - `attend` and `scorePages` split a query into two parts of 16 bits, which lose what lies beyond both.
 */
import type { KvType } from "../reference/kv_types.ts";
import type { Tolerance } from "./compare.ts";
import { DEVICE_KIND, deviceName } from "./device.ts";
import { type FloatType, ROUNDING } from "./numbers.ts";

/** Up to here a product is computed with numbers of 32 bits, or what comes to the same. */
const FEW_TOKENS = 8;
/** The same on a CPU with AMX. */
const FEW_TILE_TOKENS = 16;
/** So many go in as two parts of 16 bits; with AMX, all from {@link FEW_TILE_TOKENS} up. */
const TWO_PART_TOKENS = { from: 129, to: 256 };
const TENSOR_CORE_HEADS: readonly number[] = [64, 96, 128, 256];
/** Of sums in numbers of 32 bits. */
const EXACT = 1e-5;
/** What two parts of bf16 keep of a number. */
const TWO_PARTS = 2 ** -16;

/** What is computed: the operation, and what decides how the CUDA build goes about it. */
export type Work =
  | { operation: "matmul"; tokens: number }
  | { operation: "attendPrefill"; headDim: number; kvType?: KvType | undefined }
  | { operation: "attend" | "scorePages" };

function cudaRelative(work: Work, dtype: FloatType): number {
  if (dtype === "f32") return EXACT;
  switch (work.operation) {
    case "matmul":
      if (work.tokens <= FEW_TOKENS) return EXACT;
      if (work.tokens < TWO_PART_TOKENS.from || work.tokens > TWO_PART_TOKENS.to) return 4 * ROUNDING[dtype];
      return dtype === "bf16" ? Math.max(EXACT, TWO_PARTS) : EXACT;
    case "attendPrefill":
      return Math.max(
        EXACT,
        (TENSOR_CORE_HEADS.includes(work.headDim) ? 4 : 0) * ROUNDING[dtype] + (work.kvType ? 8 : 0) * ROUNDING[dtype],
      );
    case "attend":
      return dtype === "bf16" ? Math.max(EXACT, TWO_PARTS) : EXACT;
    case "scorePages":
      return dtype === "bf16" ? 2 * TWO_PARTS : EXACT;
  }
}

function amxRelative(work: Work, dtype: FloatType): number {
  if (work.operation === "matmul") {
    if (dtype !== "bf16" || work.tokens <= FEW_TILE_TOKENS) return EXACT;
    return work.tokens > TWO_PART_TOKENS.to ? 4 * ROUNDING.bf16 : Math.max(EXACT, TWO_PARTS);
  }
  if (work.operation !== "attendPrefill" || dtype === "f32") return EXACT;
  return (dtype === "bf16" && !work.kvType ? 4 : 8) * ROUNDING.bf16;
}

function neonRelative(work: Work, dtype: FloatType): number {
  const rounds = work.operation === "matmul" && dtype === "bf16" && work.tokens > TWO_PART_TOKENS.to;
  return rounds ? 4 * ROUNDING.bf16 : EXACT;
}

function relativeOf(work: Work, dtype: FloatType): number {
  if (DEVICE_KIND === "cuda") return cudaRelative(work, dtype);
  if (deviceName() === "neonbf16") return neonRelative(work, dtype);
  return deviceName() === "amx" ? amxRelative(work, dtype) : EXACT;
}

/** The tolerance of an operation whose weights or pages are of a type, on the device that tests run against. */
export function toleranceOf(work: Work, dtype: FloatType): Required<Pick<Tolerance, "relative">> {
  return { relative: relativeOf(work, dtype) };
}
