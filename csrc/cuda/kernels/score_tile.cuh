/* Scores of 8 pages at a time on tensor cores, for statistics of 16 or 8 bits.
 *
 * The 16 rows of a product are 8 query heads twice, high parts and what rounding left (decode_attention_mma.cuh); its 8 columns are
 * pages. Statistics go from memory straight to registers: lane (g, t) reads 8 numbers of page g at a time, and the queries are
 * arranged to match, because the order of dimensions does not matter to a dot product. */
#pragma once

#include <cuda_fp8.h>

#include <type_traits>

#include "../layout.cuh"
#include "mma.cuh"

namespace ps {

constexpr int kTilePages = 8;
constexpr int kScoreHeads = 8; /* query heads of a product */

struct f8 {
  unsigned char bits; /* e4m3 */
};

/* What products are computed in. */
template <typename T>
struct ProductType {
  using type = T;
};
template <>
struct ProductType<f8> {
  using type = f16;
};

/* Statistics of one layer and KV head. `group`: rows are those of groups of pages. */
template <typename T>
struct StatisticRows {
  const T *mean;
  const void *variance, *min, *max; /* of the pages' dtype */
  const float *std, *scale;         /* scale: nullptr but for f8 */
};

/* 8 numbers of a row, packed in pairs as 16-bit floats. */
__device__ __forceinline__ uint4 load_eight(const bf16 *row) { return __ldg(reinterpret_cast<const uint4 *>(row)); }
__device__ __forceinline__ uint4 load_eight(const f16 *row) { return __ldg(reinterpret_cast<const uint4 *>(row)); }
__device__ __forceinline__ uint2 load_eight(const f8 *row) { return __ldg(reinterpret_cast<const uint2 *>(row)); }

__device__ __forceinline__ uint4 widen_eight(uint4 packed) { return packed; }

/* Two e4m3 numbers as f16. Sign, exponent and mantissa move to where f16 has them; its exponent counts from 8 less, so times 2^8. There
 * are no NaN: a row with one has NaN as its scale. */
__device__ __forceinline__ uint32_t widen_two(uint32_t packed) {
  const uint32_t spread = __byte_perm(packed, 0, 0x1404), moved = (spread & 0x80008000u) | (spread & 0x7f007f00u) >> 1;
  const __half2 wide = __hmul2(reinterpret_cast<const __half2 &>(moved), __half2half2(__ushort_as_half(0x5c00)));
  return reinterpret_cast<const uint32_t &>(wide);
}
__device__ __forceinline__ uint4 widen_eight(uint2 packed) {
  return {widen_two(packed.x), widen_two(packed.x >> 16), widen_two(packed.y), widen_two(packed.y >> 16)};
}

/* One form of the queries of up to kScoreHeads heads, as rows of the product. */
template <int D>
struct QueryRows {
  uint32_t a[D / 16][4];
  float factor; /* of head g: what the product was divided by to fit 16 bits */
};

enum class Form { kPlain, kPositive, kNegative, kSquare };

__device__ __forceinline__ float formed(Form form, float q) {
  const float positive = q > 0 ? q : 0;
  switch (form) {
    case Form::kPositive: return positive;
    case Form::kNegative: return q - positive; /* NaN ends up here */
    case Form::kSquare: return q * q;
    default: return q;
  }
}

/* Rows of queries in memory, which may lie at any multiple of 4 bytes. */
template <int D>
struct QueryMemory {
  const float *first;

  __device__ __forceinline__ void load(int head, int dim, float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = first[head * D + dim + i];
  }
};

/* Rows of queries in shared memory, aligned to 16 bytes; what pads them avoids bank conflicts. */
template <int D>
struct QueryShared {
  static constexpr int kStride = D + 4;
  const float *first;

  __device__ __forceinline__ void load(int head, int dim, float (&out)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 four = *reinterpret_cast<const float4 *>(first + head * kStride + dim + i);
      out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
    }
  }
};

/* Lane (g, t) takes head g: dimensions 32 j + 8 t to + 7. q: `heads` rows of D. Returns |q| of head g. */
template <typename P, int D, typename Source>
__device__ __forceinline__ float load_query_rows(const Source &q, int heads, Form form, QueryRows<D> &out) {
  static_assert(D % 32 == 0, "Four lanes of 8 dimensions each read a page together");
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const bool used = g < heads;
  float own[D / 32][8], largest = 0, squares = 0;
#pragma unroll
  for (int j = 0; j < D / 32; j++) {
    if (used) q.load(g, 32 * j + 8 * t, own[j]);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float x = used ? own[j][i] : 0.f;
      squares += x * x;
      own[j][i] = formed(form, x);
      largest = fmaxf(largest, fabsf(own[j][i]));
    }
  }
  squares += __shfl_xor_sync(kAllLanes, squares, 1);
  squares += __shfl_xor_sync(kAllLanes, squares, 2);
  const int exponent = quad_exponent(largest);
  const float down = power_of_two(-exponent);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    const float *x = own[step / 2] + step % 2 * 4;
    split<P>(x[0] * down, x[1] * down, out.a[step][0], out.a[step][1]);
    split<P>(x[2] * down, x[3] * down, out.a[step][2], out.a[step][3]);
  }
  out.factor = power_of_two(exponent);
  return sqrtf(squares);
}

/* A row of statistics as this lane reads it. */
template <typename T, int D>
struct PageRow {
  decltype(load_eight(static_cast<const T *>(nullptr))) parts[D / 32];
};

template <typename T, int D>
__device__ __forceinline__ void load_page_row(const T *rows, int64_t row, PageRow<T, D> &out) {
  const T *own = rows + row * D + threadIdx.x % 4 * 8;
#pragma unroll
  for (int j = 0; j < D / 32; j++) out.parts[j] = load_eight(own + 32 * j);
}

/* out[i]: dot product of head g's query with page 2t + i of the tile. */
template <typename T, int D>
__device__ __forceinline__ void dot_tile(const QueryRows<D> &q, const PageRow<T, D> &page, float (&out)[2]) {
  float c[2][4] = {}; /* two chains of products that wait for each other */
#pragma unroll
  for (int j = 0; j < D / 32; j++) {
    const uint4 b = widen_eight(page.parts[j]);
    multiply_add<typename ProductType<T>::type>(c[0], q.a[2 * j], b.x, b.y);
    multiply_add<typename ProductType<T>::type>(c[1], q.a[2 * j + 1], b.z, b.w);
  }
  out[0] = ((c[0][0] + c[1][0]) + (c[0][2] + c[1][2])) * q.factor;
  out[1] = ((c[0][1] + c[1][1]) + (c[0][3] + c[1][3])) * q.factor;
}

/* This lane's number for its page g, seen for pages 2t and 2t + 1. */
__device__ __forceinline__ void exchange(float own, float (&out)[2]) {
  const int t = threadIdx.x % 4;
  out[0] = __shfl_sync(kAllLanes, own, 8 * t);
  out[1] = __shfl_sync(kAllLanes, own, 8 * t + 4);
}

/* Largest over the heads of the tile; NaN wins, so that it is seen and not hidden by another head. */
__device__ __forceinline__ float largest_head(float score, int heads) {
  if (static_cast<int>(threadIdx.x % kWarp / 4) >= heads) score = -INFINITY;
  score = max_nan(score, __shfl_xor_sync(kAllLanes, score, 4));
  score = max_nan(score, __shfl_xor_sync(kAllLanes, score, 8));
  return max_nan(score, __shfl_xor_sync(kAllLanes, score, 16));
}

/* Queries of one row (sequence and KV head) for a score with one row of statistics per page, `unique` or `mean`; heads beyond
 * kScoreHeads make a second product. */
template <typename T, int D, int Blocks>
struct PlainQueries {
  QueryRows<D> rows[Blocks];
  float length[Blocks]; /* |q| of head g */
};

template <typename T, int D, int Blocks>
__device__ __forceinline__ void load_queries(const float *q, int group, PlainQueries<T, D, Blocks> &out) {
#pragma unroll
  for (int block = 0; block < Blocks; block++) {
    out.length[block] = load_query_rows<typename ProductType<T>::type, D>(QueryMemory<D>{q + block * kScoreHeads * D}, group - block * kScoreHeads,
                                                                          Form::kPlain, out.rows[block]);
  }
}

/* Score of page 2t + g % 2 of the tile; std and scale are those of this lane's page g. */
template <typename T, int D, int Blocks>
__device__ __forceinline__ float score_tile(const PlainQueries<T, D, Blocks> &q, int group, float lambda, const PageRow<T, D> &page, float std,
                                            float scale) {
  const int g = threadIdx.x % kWarp / 4;
  float spreads[2], scales[2] = {1.f, 1.f}, best[2];
  exchange(lambda * std, spreads);
  if constexpr (std::is_same<T, f8>::value) exchange(scale, scales);
#pragma unroll
  for (int block = 0; block < Blocks; block++) {
    float dot[2];
    dot_tile<T, D>(q.rows[block], page, dot);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float score = block * kScoreHeads + g < group ? dot[i] * scales[i] + q.length[block] * spreads[i] : -INFINITY;
      best[i] = block == 0 ? score : max_nan(best[i], score);
    }
  }
  /* the largest over the heads; lanes of even and of odd g go on with one page each */
  const bool odd = g % 2 != 0;
  float own = max_nan(odd ? best[1] : best[0], __shfl_xor_sync(kAllLanes, odd ? best[0] : best[1], 4));
  own = max_nan(own, __shfl_xor_sync(kAllLanes, own, 8));
  return max_nan(own, __shfl_xor_sync(kAllLanes, own, 16));
}

}  // namespace ps
