/* The innermost block of a matrix product: kTileRows rows times kTileColumns columns held in registers. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVectors = 2;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 4, kTileVectors = 4; /* with 6 rows, g++ keeps two sums in memory */
#else
constexpr int kTileRows = 6, kTileVectors = 2;
#endif
constexpr int kTileColumns = kTileVectors * kLanes;

/* out[r, 0:kTileColumns] (+)= sum_k a[r, k] * b[k, 0:kTileColumns], for Rows rows. */
template <int Rows>
PS_INLINE void tile_rows(int64_t depth, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *out, int64_t out_stride,
                         bool accumulate) {
  Vec sum[Rows][kTileVectors];
  PS_UNROLL
  for (int r = 0; r < Rows; r++) {
    PS_UNROLL
    for (int v = 0; v < kTileVectors; v++) sum[r][v] = accumulate ? load(out + r * out_stride + v * kLanes) : Vec{};
  }
  for (int64_t k = 0; k < depth; k++) {
    Vec own[kTileVectors];
    PS_UNROLL
    for (int v = 0; v < kTileVectors; v++) own[v] = load(b + k * b_stride + v * kLanes);
    PS_UNROLL
    for (int r = 0; r < Rows; r++) {
      const Vec x = set1(a[r * a_stride + k]);
      PS_UNROLL
      for (int v = 0; v < kTileVectors; v++) sum[r][v] = fma(x, own[v], sum[r][v]);
    }
  }
  PS_UNROLL
  for (int r = 0; r < Rows; r++) {
    PS_UNROLL
    for (int v = 0; v < kTileVectors; v++) store(out + r * out_stride + v * kLanes, sum[r][v]);
  }
}

/* The same for any number of rows. */
static void tile_block(int64_t rows, int64_t depth, const float *a, int64_t a_stride, const float *b, int64_t b_stride, float *out,
                       int64_t out_stride, bool accumulate) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    tile_rows<kTileRows>(depth, a + r * a_stride, a_stride, b, b_stride, out + r * out_stride, out_stride, accumulate);
  }
  for (; r + 4 <= rows; r += 4) tile_rows<4>(depth, a + r * a_stride, a_stride, b, b_stride, out + r * out_stride, out_stride, accumulate);
  for (; r < rows; r++) tile_rows<1>(depth, a + r * a_stride, a_stride, b, b_stride, out + r * out_stride, out_stride, accumulate);
}

}  // namespace PS_ISA
}  // namespace ps
