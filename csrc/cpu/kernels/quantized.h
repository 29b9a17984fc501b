/* Formats of weights in blocks (block_formats.h), each described by one struct: how levels lie in a block of a file, and what numbers levels
 * stand for. A level is a small unsigned integer, a byte of q8_0 taken as it is, or a byte of f8.
 *
 * Every product here but the last is exact in f32, so a fused multiply-add changes nothing and all instruction sets give ggml's numbers
 * bit for bit. */
#pragma once

#include <type_traits>

#include "../../block_formats.h"
#include "common.h"

namespace ps {
namespace PS_ISA {

constexpr int kGroup = 32; /* numbers: levels are read, and activations rounded, this many at a time */

static inline uint16_t two_bytes(const uint8_t *p) {
  uint16_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}
static inline float half_at(const uint8_t *p) { return to_float(f16{two_bytes(p)}); }

static inline uint32_t four_bytes(const uint8_t *p) {
  uint32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}

/* Eight bits of e4m3 as f32: shifted bits get their exponent by a product. */
static inline float f8_float(uint8_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7f) << 20;
  const uint32_t value = (bits & 0x7f) == 0x7f ? 0x7fc00000u : bits_from_float(float_from_bits(magnitude) * 0x1p120f);
  return float_from_bits(value | uint32_t(bits & 0x80) << 24);
}

/* Number i of 16 bytes that contain the first half of 32 in their low 4 bits and the second half in their high ones. */
static inline int nibble(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

/* What a number is: (level - kOffset) * scale + min. Scales are the kScaleBytes bytes of a block from kScaleAt on. */
template <typename B, ps_dtype Dtype, int Bits, int Offset, bool HasMin>
struct Format {
  using Block = B;
  static constexpr int kNumbers = int(kBlockFormats[Dtype].numbers), kGroups = kNumbers / kGroup;
  static constexpr int kBits = Bits, kOffset = Offset;
  static constexpr bool kHasMin = HasMin;
  static constexpr int kScalesPerGroup = 1;
  static constexpr int kScaleAt = 0;
};

/* f16 scale, and f16 minimum where the format has one. */
template <typename B, ps_dtype Dtype, int Bits, int Offset, bool HasMin>
struct SimpleFormat : Format<B, Dtype, Bits, Offset, HasMin> {
  static constexpr int kScaleBytes = HasMin ? 4 : 2;
  static float scale(const uint8_t *scales, int, int) { return half_at(scales); }
  static float min(const uint8_t *scales, int) { return HasMin ? half_at(scales + 2) : 0.f; }
};

struct Q8_0 : SimpleFormat<BlockQ8_0, PS_Q8_0, 8, 0, false> {
  static int level(const Block &block, int, int i) { return static_cast<uint8_t>(block.q[i]); }
};
struct Q4_0 : SimpleFormat<BlockQ4_0, PS_Q4_0, 4, 8, false> {
  static int level(const Block &block, int, int i) { return nibble(block.q, i); }
};
struct Q4_1 : SimpleFormat<BlockQ4_1, PS_Q4_1, 4, 0, true> {
  static int level(const Block &block, int, int i) { return nibble(block.q, i); }
};
struct Q5_0 : SimpleFormat<BlockQ5_0, PS_Q5_0, 5, 16, false> {
  static int level(const Block &block, int, int i) { return nibble(block.q, i) | int(four_bytes(block.high) >> i & 1) << 4; }
};
struct Q5_1 : SimpleFormat<BlockQ5_1, PS_Q5_1, 5, 0, true> {
  static int level(const Block &block, int, int i) { return nibble(block.q, i) | int(four_bytes(block.high) >> i & 1) << 4; }
};

/* f16 scale and f16 minimum, times 6 bits each for every group. */
template <typename B, ps_dtype Dtype, int Bits>
struct GroupedFormat : Format<B, Dtype, Bits, 0, true> {
  static constexpr int kScaleBytes = 16;
  static float scale(const uint8_t *scales, int group, int) {
    const uint8_t *six = scales + 4;
    const int by = group < 4 ? six[group] & 63 : (six[group + 4] & 15) | (six[group - 4] >> 6) << 4;
    return half_at(scales) * float(by);
  }
  static float min(const uint8_t *scales, int group) {
    const uint8_t *six = scales + 4;
    const int by = group < 4 ? six[group + 4] & 63 : six[group + 4] >> 4 | (six[group] >> 6) << 4;
    return -(half_at(scales + 2) * float(by));
  }
};

struct Q4_K : GroupedFormat<BlockQ4_K, PS_Q4_K, 4> {
  static int level(const Block &block, int group, int i) { return block.q[group / 2 * 32 + i] >> group % 2 * 4 & 15; }
};
struct Q5_K : GroupedFormat<BlockQ5_K, PS_Q5_K, 5> {
  static int level(const Block &block, int group, int i) {
    return (block.q[group / 2 * 32 + i] >> group % 2 * 4 & 15) | (block.high[i] >> group & 1) << 4;
  }
};

/* Sixteen signed 8-bit scales, two of each group, times one f16. */
struct Q6_K : Format<BlockQ6_K, PS_Q6_K, 6, 32, false> {
  static constexpr int kScaleAt = 192, kScaleBytes = 18;
  static constexpr int kScalesPerGroup = 2;
  static int level(const Block &block, int group, int i) {
    const int half = group / 4, quarter = group % 4;
    return (block.q[64 * half + quarter % 2 * 32 + i] >> quarter / 2 * 4 & 15) | (block.high[32 * half + i] >> 2 * quarter & 3) << 4;
  }
  static float scale(const uint8_t *scales, int group, int i) {
    return half_at(scales + 16) * float(static_cast<int8_t>(scales[2 * group + i / 16]));
  }
  static float min(const uint8_t *, int) { return 0; }
};

struct F8 : Format<BlockF8, PS_F8, 8, 0, false> {
  static constexpr int kScaleAt = 128, kScaleBytes = 4;
  static int level(const Block &block, int group, int i) { return block.q[kGroup * group + i]; }
  static float scale(const uint8_t *scales, int, int) { return float_from_bits(four_bytes(scales)); }
  static float min(const uint8_t *, int) { return 0; }
};

/* Calls body with the format of a dtype. */
template <typename Body>
static void with_format(int32_t dtype, const Body &body) {
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

/* The numbers of a group, from its levels and the scales of its block. */
template <typename F>
static void dequantize_group(const uint8_t *levels, const uint8_t *scales, int group, float *out) {
  const float min = F::min(scales, group);
  for (int i = 0; i < kGroup; i++) {
    const float scale = F::scale(scales, group, i);
    if constexpr (F::kHasMin) out[i] = float(levels[i]) * scale + min;
    else if constexpr (std::is_same<F, F8>::value) out[i] = f8_float(levels[i]) * scale;
    else if constexpr (F::kBits == 8) out[i] = float(static_cast<int8_t>(levels[i])) * scale;
    else out[i] = float(int(levels[i]) - F::kOffset) * scale;
  }
}

}  // namespace PS_ISA
}  // namespace ps
