/* Scores of 16 pages at a time on tensor cores: from the coarse copies of their statistics in bytes, and from the statistics themselves.
 *
 * The 16 rows of a product are pages, its 8 columns query heads. Rows go from memory straight to registers: lane (g, t) reads pages g and
 * g + 8, and the queries are arranged to match, because the order of dimensions does not matter to a dot product. */
#pragma once

#include "../../coarse_statistics.h"
#include "prefetch.cuh"
#include "score_tile.cuh"

namespace ps {

constexpr int kHalfTile = 8, kCoarseTile = 2 * kHalfTile;

/* What a score adds to q.mean: one spread per page (unique, mean), or one per channel (diag). */
enum class Kind { kSpread, kDiag };

__device__ __forceinline__ float spread_weight(const PageScoreParams &p) { return p.scorer == PS_MEAN ? 0.f : p.lambda; }

/* A number of head g, seen for the two heads whose scores the lane has: 2t and 2t + 1. */
__device__ __forceinline__ float2 of_heads(float own) {
  float out[2];
  exchange(own, out);
  return {out[0], out[1]};
}

/* Largest over the heads, of pages g and g + 8, in all lanes of the page; NaN wins, so that it is seen and not hidden by another head. */
__device__ __forceinline__ float2 largest_of_heads(const float (&scores)[4], int heads) {
  const int head = threadIdx.x % 4 * 2;
  float of_page[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float best = max_nan(head < heads ? scores[2 * i] : -INFINITY, head + 1 < heads ? scores[2 * i + 1] : -INFINITY);
    best = max_nan(best, __shfl_xor_sync(kAllLanes, best, 1));
    of_page[i] = max_nan(best, __shfl_xor_sync(kAllLanes, best, 2));
  }
  return {of_page[0], of_page[1]};
}

/* Queries of up to kScoreHeads heads in shared memory, as columns of products with the statistics: plain and squared, high parts and what
 * rounding left; and what every lane multiplies its two heads' products by. */
template <int D>
struct ExactQueries {
  uint2 parts[2][2][D / 16][kWarp];
  float2 factors[2][kWarp], lengths[kWarp];
};

template <typename T, int D>
__device__ __forceinline__ void write_columns(const float *queries, int heads, Form form, ExactQueries<D> &out) {
  const int lane = threadIdx.x % kWarp, which = form == Form::kSquare;
  QueryRows<D> rows; /* of a product with pages as columns: high parts and what rounding left */
  const float length = load_query_rows<T, D>(QueryMemory<D>{queries}, heads, form, rows);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    out.parts[which][0][step][lane] = {rows.a[step][0], rows.a[step][2]};
    out.parts[which][1][step][lane] = {rows.a[step][1], rows.a[step][3]};
  }
  out.factors[which][lane] = of_heads(rows.factor);
  if (form == Form::kPlain) out.lengths[lane] = of_heads(length);
}

/* By one warp. */
template <typename T, int D, Kind Score>
__device__ __forceinline__ void write_queries(const float *queries, int heads, ExactQueries<D> &out) {
  if constexpr (Score == Kind::kDiag) write_columns<T, D>(queries, heads, Form::kSquare, out);
  write_columns<T, D>(queries, heads, Form::kPlain, out);
}

/* Scores by the statistics in the dtype of the cache, for up to kScoreHeads heads. Used by the threads of one team. */
template <typename T, int D, Kind Score, typename Team>
struct ExactScorer {
  static constexpr bool kDiag = Score == Kind::kDiag;
  const ExactQueries<D> &shared;
  const T *means, *variances;
  const float *std;
  float lambda;

  /* row: of statistics, of the KV head's first page. */
  __device__ __forceinline__ ExactScorer(const PageScoreParams &p, int64_t row, const ExactQueries<D> &shared) : shared(shared) {
    means = static_cast<const T *>(p.cache.mean) + row * D;
    variances = kDiag ? static_cast<const T *>(p.cache.variance) + row * D : nullptr;
    std = p.cache.std + row;
    lambda = spread_weight(p);
  }

  /* Brings a page's statistics to the L2 cache. */
  __device__ __forceinline__ void prefetch(int32_t row) const {
    constexpr int kLine = 128 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int i = 0; i < D; i += kLine) {
      prefetch_line(means + int64_t(row) * D + i);
      if constexpr (kDiag) prefetch_line(variances + int64_t(row) * D + i);
    }
    if constexpr (!kDiag) prefetch_line(std + row);
  }

  /* out += products of rows first and next with the queries of form `which`. */
  __device__ __forceinline__ void multiply(float (&out)[4], const T *numbers, int32_t first, int32_t next, int which) const {
    const int lane = threadIdx.x % kWarp, dim = lane % 4 * 8;
    uint4 of_first[D / 32], of_next[D / 32];
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      of_first[j] = load_eight(numbers + int64_t(first) * D + dim + 32 * j);
      of_next[j] = load_eight(numbers + int64_t(next) * D + dim + 32 * j);
    }
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      const uint4 a = of_first[j], b = of_next[j];
#pragma unroll
      for (int part = 0; part < 2; part++) {
        const uint2 low = shared.parts[which][part][2 * j][lane], high = shared.parts[which][part][2 * j + 1][lane];
        multiply_add<T>(out, {a.x, b.x, a.y, b.y}, low.x, low.y);
        multiply_add<T>(out, {a.z, b.z, a.w, b.w}, high.x, high.y);
      }
    }
  }

  /* Scores of two rows of statistics. */
  __device__ __forceinline__ float2 score(int32_t first, int32_t next, int heads) const {
    const int lane = threadIdx.x % kWarp;
    const float2 factors = shared.factors[0][lane], square_factors = shared.factors[1][lane], lengths = shared.lengths[lane];
    float out[4] = {}, squared[4] = {}, spreads[2];
    if constexpr (!kDiag) spreads[0] = std[first], spreads[1] = std[next];
    multiply(out, means, first, next, 0);
    if constexpr (kDiag) multiply(squared, variances, first, next, 1);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool odd = i % 2;
      const float spread = kDiag ? sqrtf(squared[i] * (odd ? square_factors.y : square_factors.x)) : spreads[i / 2] * (odd ? lengths.y : lengths.x);
      out[i] = out[i] * (odd ? factors.y : factors.x) + lambda * spread;
    }
    return largest_of_heads(out, heads);
  }

  /* Scores the pages of `count` rows of statistics, dealt out in tiles to the warps of the team. emit(i, score). */
  template <typename Emit>
  __device__ __forceinline__ void score_pages(const int32_t *rows, int32_t count, int heads, const Emit &emit) const {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4, warp = threadIdx.x / kWarp, warps = Team::threads() / kWarp;
    for (int32_t first = warp * kCoarseTile; first < count; first += warps * kCoarseTile) {
      const float2 scores = score(rows[min(first + g, count - 1)], rows[min(first + kHalfTile + g, count - 1)], heads);
      const int32_t i = first + t % 2 * kHalfTile + g;
      if (t < 2 && i < count) emit(i, t == 0 ? scores.x : scores.y);
    }
  }
};

/* A quick square root, to about 22 bits; that of a subnormal number is 0. */
__device__ __forceinline__ float square_root(float x) {
  float out;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/* What the codes of variances stand for, in a register: the compiler makes a constant anew for every use. */
__device__ __forceinline__ uint32_t held_levels() { return __shfl_sync(kAllLanes, kVarianceLevels, threadIdx.x); }

/* A tile of coarse copies in shared memory: the rows that a score reads, then their scales, then (not for diag) the pages' std. */
template <int D, Kind Score>
struct CoarseTile {
  static constexpr bool kDiag = Score == Kind::kDiag;
  static constexpr int kRowBytes = coarse_row_bytes(D, kDiag);
  static constexpr int kScales = kCoarseTile * kRowBytes, kStd = kScales + kCoarseTile * 4;
  static constexpr int kBytes = kStd + (kDiag ? 0 : kCoarseTile * 4);
};

/* Row of a tile that lane group g reads first (8 more: second). Neighbours are swapped so that two groups, which read together, use all banks
 * for rows of 160 bytes. */
__device__ __forceinline__ int tile_row(int g) { return (g & 4) | (g & 1) << 1 | (g >> 1 & 1); }

/* What a lane knows of the queries of up to kScoreHeads heads, in 8 bits, to score coarse copies. */
template <int D, Kind Score>
struct CoarseQueries {
  static constexpr bool kDiag = Score == Kind::kDiag;
  static constexpr int kSteps = D / 32; /* products of 32 dimensions, 8 of a lane */
  uint2 plain[kSteps], squares[kDiag ? kSteps : 1];
  float2 factors, spread_factors; /* of the lane's two heads; the latter for diag of squares, else |q|, with the weight of the spread */
};

/* A column of bytes, and what they were divided by; NaN where a query is not finite, so that every page is scored again. x: this lane's
 * dimensions. */
template <int Numbers>
__device__ __forceinline__ float quantize(const float (&x)[Numbers], float most, uint2 (&out)[Numbers / 8]) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < Numbers; i += 4) {
    largest = max_nan(max_nan(largest, max_nan(fabsf(x[i]), fabsf(x[i + 1]))), max_nan(fabsf(x[i + 2]), fabsf(x[i + 3])));
  }
  largest = max_nan(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = max_nan(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const float up = largest > 0 && isfinite(largest) ? most / largest : 0.f;
  auto four = [&](int i) {
    auto byte = [up](float number) { return static_cast<uint32_t>(__float2int_rn(number * up)) & 0xff; };
    return byte(x[i]) | byte(x[i + 1]) << 8 | byte(x[i + 2]) << 16 | byte(x[i + 3]) << 24;
  };
#pragma unroll
  for (int i = 0; i < Numbers / 8; i++) out[i] = {four(8 * i), four(8 * i + 4)};
  return isfinite(largest) ? largest / most : NAN;
}

template <int D, Kind Score>
__device__ __forceinline__ void load_queries(const PageScoreParams &p, const float *queries, int heads, CoarseQueries<D, Score> &out) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const float *own = queries + (g < heads ? g : 0) * D; /* lanes of heads that do not exist make columns that nobody looks at */
  const float lambda = spread_weight(p);
  float x[D / 4], sum = 0;
#pragma unroll
  for (int n = 0; n < D / 4; n += 4) {
    const float4 four = *reinterpret_cast<const float4 *>(own + coarse_dim(D, t, n));
    x[n] = four.x, x[n + 1] = four.y, x[n + 2] = four.z, x[n + 3] = four.w;
  }
  out.factors = of_heads(quantize(x, 127.f, out.plain));
#pragma unroll
  for (int n = 0; n < D / 4; n += 4) {
#pragma unroll
    for (int i = n; i < n + 4; i++) x[i] *= x[i];
    sum += x[n] + x[n + 1] + x[n + 2] + x[n + 3];
  }
  if constexpr (Score == Kind::kDiag) {
    out.spread_factors = of_heads(quantize(x, 255.f, out.squares) / 255.f * lambda * lambda);
  } else {
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    out.spread_factors = of_heads(lambda * sqrtf(sum));
  }
}

/* The same of all lanes in shared memory. */
template <int D, Kind Score>
struct SharedCoarseQueries {
  using Own = CoarseQueries<D, Score>;
  uint2 words[Own::kSteps * (Own::kDiag ? 2 : 1) + 2][kWarp];

  __device__ __forceinline__ void write(const Own &own) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < Own::kSteps; i++) {
      words[2 + i][lane] = own.plain[i];
      if constexpr (Own::kDiag) words[2 + Own::kSteps + i][lane] = own.squares[i];
    }
    words[0][lane] = {__float_as_uint(own.factors.x), __float_as_uint(own.factors.y)};
    words[1][lane] = {__float_as_uint(own.spread_factors.x), __float_as_uint(own.spread_factors.y)};
  }
  __device__ __forceinline__ void read(Own &own) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < Own::kSteps; i++) {
      own.plain[i] = words[2 + i][lane];
      if constexpr (Own::kDiag) own.squares[i] = words[2 + Own::kSteps + i][lane];
    }
    own.factors = {__uint_as_float(words[0][lane].x), __uint_as_float(words[0][lane].y)};
    own.spread_factors = {__uint_as_float(words[1][lane].x), __uint_as_float(words[1][lane].y)};
  }
};

/* Scores by the coarse copies, with the queries in 8 bits too: what that loses is less than the copies lack. Every warp for itself. */
template <int D, Kind Score>
struct CoarseScorer {
  using Tile = CoarseTile<D, Score>;
  static constexpr bool kDiag = Score == Kind::kDiag;
  static constexpr int kSteps = D / 32; /* products of 32 dimensions, 8 of a lane */
  static constexpr int kWords = D / 16; /* of a lane's means */
  static constexpr int kCodeWords = coarse_word_bytes(D) / 4;
  struct Page {
    uint32_t means[kWords];
    uint32_t codes[kDiag ? kCodeWords : 1];
    uint32_t scales, std;
  };

  CoarseQueries<D, Score> q;
  uint32_t levels, mean_place, code_place, scale_place; /* the latter of row tile_row(g) in a tile */

  __device__ __forceinline__ CoarseScorer() : levels(held_levels()) {
    const int t = threadIdx.x % 4, row = tile_row(threadIdx.x % kWarp / 4);
    mean_place = row * Tile::kRowBytes + t * coarse_piece(D);
    code_place = row * Tile::kRowBytes + D + t * coarse_word_bytes(D);
    scale_place = Tile::kScales + 4 * row;
  }

  template <int Bytes>
  static __device__ __forceinline__ void read_words(uint32_t address, uint32_t *out) {
    if constexpr (Bytes == 4) asm volatile("ld.shared.u32 %0, [%1];" : "=r"(out[0]) : "r"(address));
    else if constexpr (Bytes == 8) asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "r"(address));
    else asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(address));
  }

  /* This lane's part of row tile_row(g), or of the one 8 rows below. */
  __device__ __forceinline__ void read(uint32_t tile, int half, Page &out) const {
    constexpr int kPiece = coarse_piece(D);
    const uint32_t row = half * kHalfTile;
#pragma unroll
    for (int i = 0; i < D / 4 / kPiece; i++) {
      read_words<kPiece>(tile + mean_place + row * Tile::kRowBytes + 4 * i * kPiece, out.means + i * kPiece / 4);
    }
    if constexpr (kDiag) read_words<4 * kCodeWords>(tile + code_place + row * Tile::kRowBytes, out.codes);
    else read_words<4>(tile + scale_place + Tile::kStd - Tile::kScales + 4 * row, &out.std);
    read_words<4>(tile + scale_place + 4 * row, &out.scales);
  }

  /* Scores of rows tile_row(g) and 8 more of the tile at a shared address. */
  __device__ __forceinline__ float2 score(uint32_t tile, int heads) const {
    Page pages[2];
    read(tile, 0, pages[0]);
    read(tile, 1, pages[1]);
    int32_t sums[4] = {}, squared[4] = {};
    const Page &a = pages[0], &b = pages[1];
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
      multiply_bytes<true>(sums, {a.means[2 * step], b.means[2 * step], a.means[2 * step + 1], b.means[2 * step + 1]}, q.plain[step]);
    }
    if constexpr (kDiag) {
#pragma unroll
      for (int word = 0; word < kCodeWords; word++) {
        const uint32_t even_a = a.codes[word] & 0x33333333u, odd_a = a.codes[word] >> 2 & 0x33333333u;
        const uint32_t even_b = b.codes[word] & 0x33333333u, odd_b = b.codes[word] >> 2 & 0x33333333u;
#pragma unroll
        for (int half = 0; half < 2 && 2 * word + half < kSteps; half++) {
          auto widen = [&](uint32_t packed) { return __byte_perm(levels, 0, packed >> 16 * half); };
          multiply_bytes<false>(squared, {widen(even_a), widen(even_b), widen(odd_a), widen(odd_b)}, q.squares[2 * word + half]);
        }
      }
    }
    float out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool odd = i % 2;
      const uint32_t scale = pages[i / 2].scales;
      const float spread = kDiag ? square_root(static_cast<float>(squared[i]) *
                                               ((odd ? q.spread_factors.y : q.spread_factors.x) * __uint_as_float(scale & 0xffff0000u)))
                                 : __uint_as_float(pages[i / 2].std) * (odd ? q.spread_factors.y : q.spread_factors.x);
      out[i] = fmaf(static_cast<float>(sums[i]), (odd ? q.factors.y : q.factors.x) * __uint_as_float(scale << 16), spread);
    }
    return largest_of_heads(out, heads);
  }
};

}  // namespace ps
