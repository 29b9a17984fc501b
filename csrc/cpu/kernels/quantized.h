/* The numbers of blocks (block_formats.h) as f32. Every product here but the last is exact in f32, so a fused multiply-add changes nothing
 * and all instruction sets give ggml's numbers bit for bit. */
#pragma once

#include "../../block_formats.h"
#include "common.h"

namespace ps {
namespace PS_ISA {

/* Calls body with a value of the struct that stores the block format. */
template <typename Body>
static void with_block(int32_t dtype, const Body &body) {
  switch (dtype) {
    case PS_Q8_0: return body(BlockQ8_0{});
    case PS_Q4_0: return body(BlockQ4_0{});
    case PS_Q4_1: return body(BlockQ4_1{});
    case PS_Q5_0: return body(BlockQ5_0{});
    case PS_Q5_1: return body(BlockQ5_1{});
    case PS_Q4_K: return body(BlockQ4_K{});
    case PS_Q5_K: return body(BlockQ5_K{});
    case PS_Q6_K: return body(BlockQ6_K{});
    default: return body(BlockF8{});
  }
}

/* The dtype that a type stores. */
constexpr ps_dtype dtype_of(float) { return PS_F32; }
constexpr ps_dtype dtype_of(f16) { return PS_F16; }
constexpr ps_dtype dtype_of(bf16) { return PS_BF16; }
constexpr ps_dtype dtype_of(const BlockQ8_0 &) { return PS_Q8_0; }
constexpr ps_dtype dtype_of(const BlockQ4_0 &) { return PS_Q4_0; }
constexpr ps_dtype dtype_of(const BlockQ4_1 &) { return PS_Q4_1; }
constexpr ps_dtype dtype_of(const BlockQ5_0 &) { return PS_Q5_0; }
constexpr ps_dtype dtype_of(const BlockQ5_1 &) { return PS_Q5_1; }
constexpr ps_dtype dtype_of(const BlockQ4_K &) { return PS_Q4_K; }
constexpr ps_dtype dtype_of(const BlockQ5_K &) { return PS_Q5_K; }
constexpr ps_dtype dtype_of(const BlockQ6_K &) { return PS_Q6_K; }
constexpr ps_dtype dtype_of(const BlockF8 &) { return PS_F8; }

/* 1 for numbers that are not in blocks. */
template <typename Block>
constexpr int64_t kBlockNumbers = kBlockFormats[dtype_of(Block{})].numbers;

template <typename Block>
static const Block *row_of_blocks(const Typed &matrix, int64_t row) {
  return static_cast<const Block *>(matrix.data) + matrix.stride / kBlockNumbers<Block> * row;
}

static inline float half_float(uint16_t bits) { return to_float(f16{bits}); }

static inline uint32_t fifth_bits(const uint8_t *high) {
  uint32_t bits;
  __builtin_memcpy(&bits, high, sizeof bits);
  return bits;
}

/* Scale and minimum of one of the eight groups of a K block, 6 bits each. */
struct GroupScale {
  int scale, min;
};
static inline GroupScale group_scale(const uint8_t *scales, int group) {
  if (group < 4) return {scales[group] & 63, scales[group + 4] & 63};
  return {(scales[group + 4] & 15) | (scales[group - 4] >> 6) << 4, scales[group + 4] >> 4 | (scales[group] >> 6) << 4};
}

/* Eight bits of e4m3 as f32. Like an f16's, shifted bits get their exponent by a product; the one NaN lies where f16 has numbers. */
static inline float f8_float(uint8_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7f) << 20;
  const uint32_t value = (bits & 0x7f) == 0x7f ? 0x7fc00000u : bits_from_float(float_from_bits(magnitude) * 0x1p120f);
  return float_from_bits(value | uint32_t(bits & 0x80) << 24);
}

static inline void dequantize(const BlockQ8_0 &block, float *out) {
  const float scale = half_float(block.scale);
  for (int i = 0; i < 32; i++) out[i] = float(block.q[i]) * scale;
}

static inline void dequantize(const BlockQ4_0 &block, float *out) {
  const float scale = half_float(block.scale);
  for (int i = 0; i < 16; i++) {
    out[i] = float((block.q[i] & 15) - 8) * scale;
    out[i + 16] = float((block.q[i] >> 4) - 8) * scale;
  }
}

static inline void dequantize(const BlockQ4_1 &block, float *out) {
  const float scale = half_float(block.scale), min = half_float(block.min);
  for (int i = 0; i < 16; i++) {
    out[i] = float(block.q[i] & 15) * scale + min;
    out[i + 16] = float(block.q[i] >> 4) * scale + min;
  }
}

static inline void dequantize(const BlockQ5_0 &block, float *out) {
  const float scale = half_float(block.scale);
  const uint32_t high = fifth_bits(block.high);
  for (int i = 0; i < 16; i++) {
    out[i] = float(int((block.q[i] & 15) | (high >> i << 4 & 16)) - 16) * scale;
    out[i + 16] = float(int((block.q[i] >> 4) | (high >> (i + 12) & 16)) - 16) * scale;
  }
}

static inline void dequantize(const BlockQ5_1 &block, float *out) {
  const float scale = half_float(block.scale), min = half_float(block.min);
  const uint32_t high = fifth_bits(block.high);
  for (int i = 0; i < 16; i++) {
    out[i] = float(int((block.q[i] & 15) | (high >> i << 4 & 16))) * scale + min;
    out[i + 16] = float(int((block.q[i] >> 4) | (high >> (i + 12) & 16))) * scale + min;
  }
}

static inline void dequantize(const BlockQ4_K &block, float *out) {
  const float scale = half_float(block.scale), min = half_float(block.min);
  for (int group = 0; group < 8; group++) {
    const GroupScale own = group_scale(block.scales, group);
    const float by = scale * float(own.scale), less = min * float(own.min);
    const uint8_t *q = block.q + group / 2 * 32;
    for (int i = 0; i < 32; i++) out[32 * group + i] = float(q[i] >> group % 2 * 4 & 15) * by - less;
  }
}

static inline void dequantize(const BlockQ5_K &block, float *out) {
  const float scale = half_float(block.scale), min = half_float(block.min);
  for (int group = 0; group < 8; group++) {
    const GroupScale own = group_scale(block.scales, group);
    const float by = scale * float(own.scale), less = min * float(own.min);
    const uint8_t *q = block.q + group / 2 * 32;
    for (int i = 0; i < 32; i++) {
      out[32 * group + i] = float((q[i] >> group % 2 * 4 & 15) + (block.high[i] >> group & 1) * 16) * by - less;
    }
  }
}

static inline void dequantize(const BlockQ6_K &block, float *out) {
  const float scale = half_float(block.scale);
  for (int group = 0; group < 16; group++) {
    const int half = group / 8, quarter = group / 2 % 4, first = group % 2 * 16;
    const uint8_t *q = block.q + 64 * half + quarter % 2 * 32 + first, *high = block.high + 32 * half + first;
    const float by = scale * float(block.scales[group]);
    for (int i = 0; i < 16; i++) out[16 * group + i] = float((q[i] >> quarter / 2 * 4 & 15) + (high[i] >> 2 * quarter & 3) * 16 - 32) * by;
  }
}

static inline void dequantize(const BlockF8 &block, float *out) {
  for (int i = 0; i < 128; i++) out[i] = f8_float(block.q[i]) * block.scale;
}

template <typename Block>
static void dequantize_row(const Block *row, int64_t width, float *out) {
  for (int64_t i = 0; i < width / kBlockNumbers<Block>; i++) dequantize(row[i], out + i * kBlockNumbers<Block>);
}

}  // namespace PS_ISA
}  // namespace ps
