/* Numbers of weights in blocks as floats, exactly as the formats define them (tests/reference/quantized.ts). */
#pragma once

#include "../../block_formats.h"
#include "pack.cuh"
#include "quantized.cuh"

namespace ps {

/* How a matrix in blocks lies in memory. */
struct BlockRows {
  const uint8_t *data;
  int64_t row_stride; /* bytes */
  int64_t rows, inputs;

  BlockRows(const Typed &weight, int64_t row_count, int64_t input_count)
      : data(static_cast<const uint8_t *>(weight.data)),
        row_stride(bytes_of_numbers(weight.dtype, weight.stride)),
        rows(row_count),
        inputs(input_count) {}

  /* Whether a row lies in a tile, and not in GGUF's layout. */
  __device__ __forceinline__ bool tiled(int64_t row) const { return row < rows / kTileRows * kTileRows; }
  /* The region of a row's block. */
  template <typename F>
  __device__ __forceinline__ const uint8_t *region(int64_t row, int64_t block) const {
    return data + row / kTileRows * kTileRows * row_stride + block * F::kRegionBytes;
  }
  /* A block of a row in GGUF's layout. */
  template <typename F>
  __device__ __forceinline__ const uint8_t *plain(int64_t row, int64_t block) const {
    return data + row * row_stride + block * F::kBytes;
  }
};

__device__ __forceinline__ float half_at(const uint8_t *p) { return __half2float(__ushort_as_half(static_cast<unsigned short>(p[0] | p[1] << 8))); }
__device__ __forceinline__ float float_at(const uint8_t *p) {
  return __uint_as_float(p[0] | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24);
}

/* What turns the bits of a number into the number: scale * (bits - offset) + minimum, each operation rounded on its own. */
struct Line {
  float scale, minimum;
};

template <typename F>
__device__ __forceinline__ float on_line(const Line &line, uint32_t bits) {
  if constexpr (F::kScales == Scales::kFloat) return __fmul_rn(e4m3_to_float(bits), line.scale);
  else if constexpr (F::kLowBits == 8) return __fmul_rn(line.scale, static_cast<float>(static_cast<int8_t>(bits)));
  else if constexpr (F::kOffset != 0) return __fmul_rn(line.scale, static_cast<float>(static_cast<int>(bits) - F::kOffset));
  else return __fadd_rn(__fmul_rn(line.scale, static_cast<float>(bits)), line.minimum);
}

/* The 6-bit scale and minimum of sub-block `sub`, from their 12 bytes. */
__device__ __forceinline__ Line six_bit_line(const uint8_t *q, int sub, float d, float dmin) {
  const int scale = sub < 4 ? q[sub] & 63 : (q[sub + 4] & 15) | q[sub - 4] >> 6 << 4;
  const int minimum = sub < 4 ? q[sub + 4] & 63 : q[sub + 4] >> 4 | q[sub] >> 6 << 4;
  return {__fmul_rn(d, static_cast<float>(scale)), -__fmul_rn(dmin, static_cast<float>(minimum))};
}

/* Of the number `input` of a region's row. */
template <typename F>
__device__ __forceinline__ Line region_line(const uint8_t *region, int row, int input) {
  if constexpr (F::kScales == Scales::kFloat) return {float_at(region + F::kScalesAt + (row % 8 * 2 + row / 8) * 4), 0};
  else {
    const float d = half_at(region + kHalvesAt<F> + half_place<F>(row, 0));
    if constexpr (F::kScales == Scales::kOne) return {d, 0};
    else if constexpr (F::kScales == Scales::kPerHalf) {
      return {__fmul_rn(d, static_cast<float>(static_cast<int8_t>(region[F::kScalesAt + per_half_place(row, input / 16)]))), 0};
    } else {
      const float m = half_at(region + kHalvesAt<F> + half_place<F>(row, 1));
      if constexpr (F::kScales == Scales::kTwo) return {d, m};
      else return six_bit_line(region + F::kScalesAt + six_bit_place(row), input / kSubBlock, d, m);
    }
  }
}

/* Of the number `input` of a block in GGUF's layout. */
template <typename F>
__device__ __forceinline__ Line plain_line(const uint8_t *block, int input) {
  if constexpr (F::kScales == Scales::kFloat) return {float_at(block + 128), 0};
  else if constexpr (F::kScales == Scales::kOne) return {half_at(block), 0};
  else if constexpr (F::kScales == Scales::kTwo) return {half_at(block), half_at(block + 2)};
  else if constexpr (F::kScales == Scales::kSixBits) return six_bit_line(block + 4, input / kSubBlock, half_at(block), half_at(block + 2));
  else return {__fmul_rn(half_at(block + 208), static_cast<float>(static_cast<int8_t>(block[192 + input / 16]))), 0};
}

/* The bits of the number `input` of a region's row. */
template <typename F>
__device__ __forceinline__ uint32_t region_bits(const uint8_t *region, int row, int input) {
  const int sub = input / kSubBlock, i = input % kSubBlock;
  const uint8_t *low = region + sub * F::kLowBytes, *high = region + F::kHighAt + sub * F::kHighBytes;
  uint32_t bits = low[low_place<F>(row, i)];
  if constexpr (F::kLowBits == 8) return bits;
  bits = bits >> (i / 16 * 4) & 15;
  if constexpr (F::kHighBits > 0) {
    const uint8_t *own = high + high_place<F>(row, i % 16 / 4);
    const uint32_t all = F::kHighBits == 1 ? own[0] : own[0] | own[1] << 8;
    bits |= (all >> high_shift<F>(i) & ((1 << F::kHighBits) - 1)) << 4;
  }
  return bits;
}

/* Number `input` of a row. */
template <typename F>
__device__ __forceinline__ float dequantize(const BlockRows &rows, int64_t row, int64_t input) {
  const int64_t block = input / F::kInputs;
  const int inside = static_cast<int>(input % F::kInputs);
  if (rows.tiled(row)) {
    const uint8_t *region = rows.region<F>(row, block);
    const int place = static_cast<int>(row % kTileRows);
    return on_line<F>(region_line<F>(region, place, inside), region_bits<F>(region, place, inside));
  }
  const uint8_t *plain = rows.plain<F>(row, block);
  return on_line<F>(plain_line<F>(plain, inside), stored_bits<F>({plain}, inside));
}

}  // namespace ps
