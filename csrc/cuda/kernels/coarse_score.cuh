/* Scores of 16 pages at a time on tensor cores: from the coarse copies of their statistics in bytes, and from the statistics themselves.
 *
 * The 16 rows of a product are pages, its 8 columns query heads. Rows go from memory straight to registers: lane (g, t) reads pages g and
 * g + 8, and the queries are arranged to match, because the order of dimensions does not matter to a dot product. */
#pragma once

#include "../../coarse_statistics.h"
#include "score_tile.cuh"

namespace ps {

constexpr int kHalfTile = 8, kCoarseTile = 2 * kHalfTile;

/* What a score adds to q.mean: one spread per page (unique, mean), or one per channel (diag). */
enum class Kind { kSpread, kDiag };

__device__ __forceinline__ float spread_weight(const PageScoreParams &p) { return p.scorer == PS_MEAN ? 0.f : p.lambda; }

/* First row of statistics of a layer and KV head. */
__device__ __forceinline__ int64_t first_row(const PageScoreParams &p, int64_t head) {
  return (p.layer * int64_t(p.cache.desc.num_kv_heads) + head) * p.cache.desc.num_pages;
}

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

/* Queries as columns of the product, plain and squared, high parts and what rounding left; in shared memory, since the pages that are under
 * way take the registers. */
template <int D>
struct SharedColumns {
  uint2 parts[2][2][D / 16][kWarp];
};

/* Scores by the statistics in the dtype of the cache, for up to kScoreHeads heads. Used by the threads of one team. */
template <typename T, int D, Kind Score, typename Team>
struct ExactScorer {
  static constexpr bool kDiag = Score == Kind::kDiag;
  struct Page { /* as this lane reads it */
    uint4 mean[D / 32], variance[kDiag ? D / 32 : 1];
    float std;
  };

  SharedColumns<D> &shared;
  const T *means, *variances;
  const float *std;
  float2 factors, square_factors, lengths;
  float lambda;
  int heads;

  __device__ __forceinline__ ExactScorer(const PageScoreParams &p, int64_t head, SharedColumns<D> &shared) : shared(shared) {
    const int64_t row = first_row(p, head);
    means = static_cast<const T *>(p.cache.mean) + row * D;
    variances = kDiag ? static_cast<const T *>(p.cache.variance) + row * D : nullptr;
    std = p.cache.std + row;
    lambda = spread_weight(p);
  }

  __device__ __forceinline__ float2 share_columns(const float *queries, Form form, int which) {
    QueryRows<D> rows; /* of a product with pages as columns: high parts and what rounding left */
    const float length = load_query_rows<T, D>(queries, heads, form, rows);
    if (threadIdx.x < kWarp) {
#pragma unroll
      for (int step = 0; step < D / 16; step++) {
        shared.parts[which][0][step][threadIdx.x] = {rows.a[step][0], rows.a[step][2]};
        shared.parts[which][1][step][threadIdx.x] = {rows.a[step][1], rows.a[step][3]};
      }
    }
    lengths = of_heads(length);
    return of_heads(rows.factor);
  }

  /* All threads of the team call; begins and ends with a barrier. */
  __device__ __forceinline__ void load_queries(const float *queries, int count) {
    heads = count;
    Team::sync();
    if constexpr (kDiag) square_factors = share_columns(queries, Form::kSquare, 1);
    factors = share_columns(queries, Form::kPlain, 0);
    Team::sync();
  }

  __device__ __forceinline__ void load(int32_t row, Page &out) const {
    const int64_t own = int64_t(row) * D + threadIdx.x % 4 * 8;
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      out.mean[j] = load_eight(means + own + 32 * j);
      if constexpr (kDiag) out.variance[j] = load_eight(variances + own + 32 * j);
    }
    if constexpr (!kDiag) out.std = std[row];
  }

  __device__ __forceinline__ void multiply(float (&out)[4], const uint4 *of_g, const uint4 *of_next, int which) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      const uint4 a = of_g[j], b = of_next[j];
#pragma unroll
      for (int part = 0; part < 2; part++) {
        const uint2 first = shared.parts[which][part][2 * j][lane], second = shared.parts[which][part][2 * j + 1][lane];
        multiply_add<T>(out, {a.x, b.x, a.y, b.y}, first.x, first.y);
        multiply_add<T>(out, {a.z, b.z, a.w, b.w}, second.x, second.y);
      }
    }
  }

  /* Scores of pages g and g + 8 of the tile. */
  __device__ __forceinline__ float2 score(const Page (&pages)[2]) const {
    float out[4] = {}, squared[4] = {};
    multiply(out, pages[0].mean, pages[1].mean, 0);
    if constexpr (kDiag) multiply(squared, pages[0].variance, pages[1].variance, 1);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool odd = i % 2;
      const float spread = kDiag ? sqrtf(squared[i] * (odd ? square_factors.y : square_factors.x)) : pages[i / 2].std * (odd ? lengths.y : lengths.x);
      out[i] = out[i] * (odd ? factors.y : factors.x) + lambda * spread;
    }
    return largest_of_heads(out, heads);
  }
};

/* A quick square root, to about 22 bits; that of a subnormal number is 0. */
__device__ __forceinline__ float square_root(float x) {
  float out;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/* What the codes of variances stand for, in a register; else it is made anew for every use. */
__device__ __forceinline__ uint32_t held_levels() {
  uint32_t out;
  asm volatile("mov.b32 %0, %1;" : "=r"(out) : "n"(kVarianceLevels));
  return out;
}

/* Scores by the coarse copies, with the queries in 8 bits too: what that loses is less than the copies lack. Every warp for itself. */
template <int D, Kind Score>
struct CoarseScorer {
  static constexpr bool kDiag = Score == Kind::kDiag;
  static constexpr int kSteps = D / 32; /* products of 32 dimensions, 8 of a lane */
  static constexpr int kWords = D / 16; /* of a lane's means */
  static constexpr int kCodeWords = coarse_word_bytes(D) / 4;
  struct Page {
    uint32_t means[kWords];
    uint32_t codes[kDiag ? kCodeWords : 1];
    uint32_t scales;
    float std;
  };

  uint2 plain[kSteps], squares[kDiag ? kSteps : 1];
  const uint8_t *means, *codes; /* this lane's first of a row */
  const uint32_t *scales;
  const float *std;
  float2 factors, square_factors, lengths; /* the latter two with the weight of the spread */
  float lambda;
  uint32_t levels;
  int heads, row_bytes;

  __device__ __forceinline__ CoarseScorer(const PageScoreParams &p, int64_t head) {
    const int64_t row = first_row(p, head);
    row_bytes = coarse_row_bytes(D, kDiag || p.cache.variance != nullptr);
    means = p.cache.coarse + row * row_bytes + threadIdx.x % 4 * coarse_piece(D);
    codes = p.cache.coarse + row * row_bytes + D + threadIdx.x % 4 * coarse_word_bytes(D);
    levels = held_levels();
    scales = p.cache.coarse_scale + row;
    std = p.cache.std + row;
    lambda = spread_weight(p);
  }

  /* A column of bytes, and what they were divided by; NaN where a query is not finite, so that every page is scored again. four(n): the
   * numbers at places n to n + 3 of the lane; read twice, since the pages that are under way take the registers. */
  template <typename Four>
  static __device__ __forceinline__ float quantize(const Four &four, float most, uint2 (&out)[kSteps]) {
    float largest = 0;
#pragma unroll
    for (int word = 0; word < kWords; word++) {
      const float4 x = four(4 * word);
      largest = max_nan(max_nan(largest, max_nan(fabsf(x.x), fabsf(x.y))), max_nan(fabsf(x.z), fabsf(x.w)));
    }
    largest = max_nan(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = max_nan(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float up = largest > 0 && isfinite(largest) ? most / largest : 0.f;
    auto byte = [up](float x) { return static_cast<uint32_t>(__float2int_rn(x * up)) & 0xff; };
#pragma unroll
    for (int word = 0; word < kWords; word++) {
      const float4 x = four(4 * word);
      (word % 2 == 0 ? out[word / 2].x : out[word / 2].y) = byte(x.x) | byte(x.y) << 8 | byte(x.z) << 16 | byte(x.w) << 24;
    }
    return isfinite(largest) ? largest / most : NAN;
  }

  __device__ __forceinline__ void load_queries(const float *queries, int count) {
    heads = count;
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const float *own = queries + (g < heads ? g : 0) * D; /* lanes of heads that do not exist make columns that nobody looks at */
    auto four = [&](int n) { return *reinterpret_cast<const float4 *>(own + coarse_dim(D, t, n)); };
    auto squared = [&](int n) {
      const float4 x = four(n);
      return make_float4(x.x * x.x, x.y * x.y, x.z * x.z, x.w * x.w);
    };
    factors = of_heads(quantize(four, 127.f, plain));
    if constexpr (kDiag) {
      square_factors = of_heads(quantize(squared, 255.f, squares) / 255.f * lambda * lambda);
    } else {
      float sum = 0;
#pragma unroll
      for (int word = 0; word < kWords; word++) {
        const float4 x = squared(4 * word);
        sum += x.x + x.y + x.z + x.w;
      }
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      lengths = of_heads(lambda * sqrtf(sum));
    }
  }

  template <int Bytes>
  static __device__ __forceinline__ void load_words(const uint8_t *from, uint32_t *out) {
    if constexpr (Bytes == 4) {
      *out = __ldg(reinterpret_cast<const uint32_t *>(from));
    } else if constexpr (Bytes == 8) {
      const uint2 words = __ldg(reinterpret_cast<const uint2 *>(from));
      out[0] = words.x, out[1] = words.y;
    } else {
      const uint4 words = __ldg(reinterpret_cast<const uint4 *>(from));
      out[0] = words.x, out[1] = words.y, out[2] = words.z, out[3] = words.w;
    }
  }

  __device__ __forceinline__ void load(int32_t row, Page &out) const {
    constexpr int kPiece = coarse_piece(D);
    const uint32_t place = row;
    const uint64_t offset = uint64_t(place) * static_cast<uint32_t>(kDiag ? coarse_row_bytes(D, true) : row_bytes);
#pragma unroll
    for (int i = 0; i < D / 4 / kPiece; i++) load_words<kPiece>(means + offset + 4 * i * kPiece, out.means + i * kPiece / 4);
    if constexpr (kDiag) load_words<4 * kCodeWords>(codes + offset, out.codes);
    else out.std = std[place];
    out.scales = scales[place];
  }

  /* Eight codes, the low half of `codes`, as the bytes that they stand for. */
  __device__ __forceinline__ uint2 widen(uint32_t packed) const {
    return {__byte_perm(levels, 0, packed & 0x3333), __byte_perm(levels, 0, packed >> 2 & 0x3333)};
  }

  /* Scores of pages g and g + 8 of the tile. */
  __device__ __forceinline__ float2 score(const Page (&pages)[2]) const {
    int32_t sums[4] = {}, squared[4] = {};
    const Page &a = pages[0], &b = pages[1];
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
      multiply_bytes<true>(sums, {a.means[2 * step], b.means[2 * step], a.means[2 * step + 1], b.means[2 * step + 1]}, plain[step]);
      if constexpr (kDiag) {
        const uint2 of_a = widen(a.codes[step / 2] >> (step % 2 * 16)), of_b = widen(b.codes[step / 2] >> (step % 2 * 16));
        multiply_bytes<false>(squared, {of_a.x, of_b.x, of_a.y, of_b.y}, squares[step]);
      }
    }
    float out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool odd = i % 2;
      const uint32_t scale = pages[i / 2].scales;
      const float spread =
          kDiag ? square_root(static_cast<float>(squared[i]) * ((odd ? square_factors.y : square_factors.x) * __uint_as_float(scale & 0xffff0000u)))
                : pages[i / 2].std * (odd ? lengths.y : lengths.x);
      out[i] = fmaf(static_cast<float>(sums[i]), (odd ? factors.y : factors.x) * __uint_as_float(scale << 16), spread);
    }
    return largest_of_heads(out, heads);
  }
};

/* Scores `count` pages, at least one, in tiles that are dealt out to `warps` warps, of which each has Tiles under way. look_up(i): what the page
 * table has for page i, one round before check(i, that) gives its row of statistics; a check at once would wait for the table. ready() is
 * called once, while the first rows are under way. emit(i, score). */
template <int Tiles, typename Scorer, typename LookUp, typename Check, typename Ready, typename Emit>
__device__ __forceinline__ void score_pages(const Scorer &scorer, int warp, int warps, int32_t count, const LookUp &look_up, const Check &check,
                                            const Ready &ready, const Emit &emit) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  auto page_of = [&](int32_t round, int i, int half) { return (round + i * warps + warp) * kCoarseTile + half * kHalfTile + g; };
  int32_t next[Tiles][2];
  typename Scorer::Page pages[Tiles][2];
  auto look_ahead = [&](int32_t round, int i) {
#pragma unroll
    for (int half = 0; half < 2; half++) next[i][half] = look_up(min(page_of(round, i, half), count - 1));
  };
  auto load = [&](int32_t round, int i) {
#pragma unroll
    for (int half = 0; half < 2; half++) scorer.load(check(min(page_of(round, i, half), count - 1), next[i][half]), pages[i][half]);
  };
#pragma unroll
  for (int i = 0; i < Tiles; i++) look_ahead(0, i);
#pragma unroll
  for (int i = 0; i < Tiles; i++) load(0, i);
#pragma unroll
  for (int i = 0; i < Tiles; i++) look_ahead(Tiles * warps, i);
  ready();
  for (int32_t round = 0; round == 0 || (round + warp) * kCoarseTile < count; round += Tiles * warps) {
#pragma unroll
    for (int i = 0; i < Tiles; i++) { /* a tile is read while the others are scored; beyond the last page: the last again, without use */
      const float2 scores = scorer.score(pages[i]);
      const int32_t page = page_of(round, i, t % 2);
      if (t < 2 && page < count) emit(page, t == 0 ? scores.x : scores.y);
      load(round + Tiles * warps, i);
      look_ahead(round + 2 * Tiles * warps, i);
    }
  }
}

}  // namespace ps
