/* Weights in blocks: their formats, and where their bits lie on the GPU.
 *
 * Rows come in GGUF's layout. On the GPU, 16 rows form a tile of as many bytes; rows beyond the last whole tile keep GGUF's layout. A tile
 * is a sequence of regions, one per block of inputs. A region contains, for every 32 inputs (a sub-block), the low bits of all rows, then
 * the high bits, in the order in which lanes take them, and behind those the scales. Every byte belongs to one row, so rows can be written
 * in any order and by different threads.
 *
 * Lane (g, t) = (lane / 4, lane % 4) takes rows g and g + 8, inputs 4t to 4t + 3 and 16 + 4t to 16 + 4t + 3 of a sub-block. */
#pragma once

#include "../../block_formats.h"
#include "../common.cuh"

namespace ps {

constexpr int kTileRows = 16;
constexpr int kSubBlock = 32; /* inputs of one product */

/* What surrounds the bits of a block's numbers. */
enum class Scales {
  kOne,      /* f16 d:                          number = d * (q - offset) */
  kTwo,      /* f16 d, m:                       number = d * q + m */
  kSixBits,  /* f16 d, dmin, 8 x (6, 6) bits:   number = d * sc * q - dmin * m */
  kPerHalf,  /* f16 d, 16 x int8:               number = d * sc * (q - 32), a scale per 16 inputs */
  kFloat     /* f32 d:                          number = d * e4m3 */
};

template <int32_t DType, int LowBits, int HighBits, int Offset, Scales Kind>
struct Format {
  static constexpr int kInputs = kBlockFormats[DType].numbers, kBytes = kBlockFormats[DType].bytes, kLowBits = LowBits, kHighBits = HighBits,
                       kOffset = Offset;
  static constexpr Scales kScales = Kind;
  static constexpr int kSubs = kInputs / kSubBlock;
  static constexpr int kLowBytes = kTileRows * kSubBlock * LowBits / 8, kHighBytes = kTileRows * kSubBlock * HighBits / 8; /* a sub-block */
  static constexpr int kHighAt = kSubs * kLowBytes, kScalesAt = kHighAt + kSubs * kHighBytes; /* in a region */
  static constexpr int kRegionBytes = kTileRows * kBytes;
  static_assert(kRegionBytes % 32 == 0 && kScalesAt < kRegionBytes, "Regions are read in pieces of 16 bytes");
};

using Q8_0 = Format<PS_Q8_0, 8, 0, 0, Scales::kOne>;
using Q4_0 = Format<PS_Q4_0, 4, 0, 8, Scales::kOne>;
using Q4_1 = Format<PS_Q4_1, 4, 0, 0, Scales::kTwo>;
using Q5_0 = Format<PS_Q5_0, 4, 1, 16, Scales::kOne>;
using Q5_1 = Format<PS_Q5_1, 4, 1, 0, Scales::kTwo>;
using Q4_K = Format<PS_Q4_K, 4, 0, 0, Scales::kSixBits>;
using Q5_K = Format<PS_Q5_K, 4, 1, 0, Scales::kSixBits>;
using Q6_K = Format<PS_Q6_K, 4, 2, 32, Scales::kPerHalf>;
using F8 = Format<PS_F8, 8, 0, 0, Scales::kFloat>;

/* Calls body with the format of a dtype in blocks. */
template <typename Body>
void with_format(int32_t dtype, const Body &body) {
  switch (dtype) {
    case PS_Q8_0: return body(Q8_0{});
    case PS_Q4_0: return body(Q4_0{});
    case PS_Q4_1: return body(Q4_1{});
    case PS_Q5_0: return body(Q5_0{});
    case PS_Q5_1: return body(Q5_1{});
    case PS_Q4_K: return body(Q4_K{});
    case PS_Q5_K: return body(Q5_K{});
    case PS_Q6_K: return body(Q6_K{});
    default: return body(F8{});
  }
}

/* ---- where bytes lie in a region ---- */

/* Bytes of the lane that holds (row, input): its low bits, of inputs `input` and, of 4 bits, input + 16 in the upper half. */
template <typename F>
__device__ __forceinline__ int low_place(int row, int input) {
  const int lane = row % 8 * 4 + input % 16 / 4, upper_row = row / 8;
  if constexpr (F::kLowBits == 8) return lane * 16 + (input / 16 * 2 + upper_row) * 4 + input % 4;
  else return lane * 8 + upper_row * 4 + input % 4;
}
/* The byte (1 bit) or the two bytes (2 bits) of a row in the lane that holds inputs 4t to 4t + 3. */
template <typename F>
__device__ __forceinline__ int high_place(int row, int t) {
  return ((row % 8 * 4 + t) * 2 + row / 8) * F::kHighBits;
}
/* Place of a number's high bits among its row's in a lane. Numbers are unpacked in pairs (j, j + 2): the first ones of the pairs lie in the
 * lower half of these bits, the second ones in the upper half. */
template <typename F>
__device__ __forceinline__ constexpr int high_shift(int input) {
  return (input % 4 / 2 * 4 + input / 16 * 2 + input % 2) * F::kHighBits;
}
/* The f16 number `which` (0 d, 1 m or dmin) of a row. */
template <typename F>
__device__ __forceinline__ int half_place(int row, int which) {
  constexpr int kNumbers = F::kScales == Scales::kTwo || F::kScales == Scales::kSixBits ? 2 : 1;
  return (row % 8 * kNumbers + which) * 4 + row / 8 * 2;
}
/* Where d (and m) lie behind the 8-bit or 6-bit scales. */
template <typename F>
constexpr int kHalvesAt = F::kScalesAt + (F::kScales == Scales::kSixBits   ? 12 * kTileRows
                                          : F::kScales == Scales::kPerHalf ? 16 * kTileRows
                                                                           : 0);
/* The 12 bytes of 6-bit scales of a row. */
__device__ __forceinline__ int six_bit_place(int row) { return (row % 8 * 2 + row / 8) * 12; }
/* The scale of the 16 inputs from 16 * half on. */
__device__ __forceinline__ int per_half_place(int row, int half) { return (half / 2 * 8 + row % 8) * 4 + row / 8 * 2 + half % 2; }

/* ---- one block of one row, from GGUF's layout into a region ---- */

struct Bytes {
  const uint8_t *p;
  __device__ __forceinline__ uint32_t operator[](int i) const { return p[i]; }
};

/* The bits of number `input` of a block as GGUF stores it. */
template <typename F>
__device__ __forceinline__ uint32_t stored_bits(const Bytes &block, int input) {
  if constexpr (F::kLowBits == 8) {
    return block[(F::kScales == Scales::kFloat ? 0 : 2) + input];
  } else if constexpr (F::kScales == Scales::kPerHalf) {
    const int half = input / 128, group = input % 128 / 32, i = input % 32;
    const uint32_t low = block[half * 64 + group % 2 * 32 + i] >> (group / 2 * 4) & 15;
    return low | (block[128 + half * 32 + i] >> (group * 2) & 3) << 4;
  } else if constexpr (F::kScales == Scales::kSixBits) {
    constexpr int kLow = F::kHighBits ? 48 : 16;
    const int pair = input / 64, upper = input / 32 % 2, i = input % 32;
    uint32_t bits = block[kLow + pair * 32 + i] >> (upper * 4) & 15;
    if (F::kHighBits) bits |= (block[16 + i] >> (input / 32) & 1) << 4;
    return bits;
  } else {
    constexpr int kHigh = F::kScales == Scales::kTwo ? 4 : 2, kLow = kHigh + (F::kHighBits ? 4 : 0);
    uint32_t bits = block[kLow + input % 16] >> (input / 16 * 4) & 15;
    if (F::kHighBits) bits |= (block[kHigh + input / 8] >> (input % 8) & 1) << 4;
    return bits;
  }
}

/* Writes a row's part of a region. */
template <typename F>
__device__ void arrange_block(const Bytes &block, uint8_t *region, int row) {
  for (int sub = 0; sub < F::kSubs; sub++) {
    uint8_t *low = region + sub * F::kLowBytes, *high = region + F::kHighAt + sub * F::kHighBytes;
    for (int t = 0; t < 4; t++) {
      uint32_t words[2] = {}, high_bits = 0; /* of the first and of the last 16 inputs */
      for (int j = 0; j < 4; j++) {
        const uint32_t first = stored_bits<F>(block, sub * kSubBlock + 4 * t + j), second = stored_bits<F>(block, sub * kSubBlock + 16 + 4 * t + j);
        if constexpr (F::kLowBits == 8) words[0] |= first << (8 * j), words[1] |= second << (8 * j);
        else words[0] |= ((first & 15) | (second & 15) << 4) << (8 * j);
        if constexpr (F::kHighBits > 0) high_bits |= (first >> 4) << high_shift<F>(j) | (second >> 4) << high_shift<F>(16 + j);
      }
      *reinterpret_cast<uint32_t *>(low + low_place<F>(row, 4 * t)) = words[0];
      if constexpr (F::kLowBits == 8) *reinterpret_cast<uint32_t *>(low + low_place<F>(row, 16 + 4 * t)) = words[1];
      if constexpr (F::kHighBits == 1) high[high_place<F>(row, t)] = static_cast<uint8_t>(high_bits);
      if constexpr (F::kHighBits == 2) *reinterpret_cast<uint16_t *>(high + high_place<F>(row, t)) = static_cast<uint16_t>(high_bits);
    }
  }
  if constexpr (F::kScales == Scales::kFloat) {
    for (int i = 0; i < 4; i++) region[F::kScalesAt + (row % 8 * 2 + row / 8) * 4 + i] = static_cast<uint8_t>(block[128 + i]);
    return;
  }
  constexpr int kHalves = F::kScales == Scales::kTwo || F::kScales == Scales::kSixBits ? 2 : 1;
  constexpr int kHalvesFrom = F::kScales == Scales::kPerHalf ? 208 : 0;
  for (int i = 0; i < kHalves; i++) {
    for (int byte = 0; byte < 2; byte++)
      region[kHalvesAt<F> + half_place<F>(row, i) + byte] = static_cast<uint8_t>(block[kHalvesFrom + 2 * i + byte]);
  }
  if constexpr (F::kScales == Scales::kSixBits) {
    for (int i = 0; i < 12; i++) region[F::kScalesAt + six_bit_place(row) + i] = static_cast<uint8_t>(block[4 + i]);
  }
  if constexpr (F::kScales == Scales::kPerHalf) {
    for (int i = 0; i < 16; i++) region[F::kScalesAt + per_half_place(row, i)] = static_cast<uint8_t>(block[192 + i]);
  }
}

/* An e4m3 number as a float. */
__device__ __forceinline__ float e4m3_to_float(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7f;
  if (magnitude == 0x7f) return __uint_as_float(0x7fc00000u);
  /* exponent and mantissa move to where f16 has them, whose exponent counts from 8 more */
  const float value = __half2float(__ushort_as_half(static_cast<unsigned short>(magnitude << 7))) * 256.f;
  return bits & 0x80 ? -value : value;
}

}  // namespace ps
