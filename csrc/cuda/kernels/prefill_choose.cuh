/* What the kernels of prefill_choose share: rows and pages of a tile, shares of a softmax, and products of queries and statistics on tensor cores. */
#pragma once

#include "../layout.cuh"
#include "cluster_select.cuh"
#include "mma.cuh"

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowBlock = 64; /* rows that a warp multiplies at once */
constexpr int kTilePages = 16; /* pages that a warp multiplies at once */
constexpr int kRoundPages = kWarps * kTilePages;
constexpr int64_t kStaticSharedBytes = kWarps * kRowBlock * 8 + sizeof(SelectShared) + sizeof(ClusterShared);
constexpr int64_t kBlocksPerMultiprocessor = 4; /* that are wanted */
constexpr int kMostGroup = 16; /* query heads of a KV head that the fast kernel takes */
constexpr float kLog2E = 1.4426950408889634f;

/* A row's part of sum(2^score) over a block's pages: largest score, and sum relative to it. */
struct Share {
  float largest, sum;
};

struct ChooseLaunch {
  PrefillChooseParams p;
  BadIndex *bad_index;
  Share *shares; /* [tiles, Hk, chunks, rows] */
  float *scores; /* [tiles, Hk, pages] */
  int32_t chunks; /* blocks of a tile and KV head */
  int32_t chunk_pages; /* of each, where they are launches of their own */
  int32_t rows, pages;
};

/* A tile of the prompt and a KV head, and the pages that compete. */
struct PromptRow {
  int64_t index;
  int32_t head, group, token, tokens, samples, rows;
  int32_t before, first, end; /* pages before the tile; those from first to end compete */
};

__device__ __forceinline__ PromptRow prompt_row(const PrefillChooseParams &p, int64_t index) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t tile = index / desc.num_kv_heads;
  PromptRow row;
  row.index = index;
  row.head = static_cast<int32_t>(index % desc.num_kv_heads);
  row.group = desc.num_query_heads / desc.num_kv_heads;
  row.token = static_cast<int32_t>(p.tiles.first(tile));
  row.tokens = static_cast<int32_t>(p.tiles.end(tile)) - row.token;
  row.samples = static_cast<int32_t>(sampled_tokens(row.tokens));
  row.rows = row.samples * row.group;
  row.before = static_cast<int32_t>((p.tiles.start + row.token) / desc.page_size);
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  row.first = forced.first;
  row.end = row.before > p.k ? row.before - forced.last : row.first;
  return row;
}

__device__ __forceinline__ const float *row_query(const PrefillChooseParams &p, const PromptRow &row, int32_t r) {
  const int64_t token = row.token + sampled_token(row.tokens, r / row.group);
  return p.q.row(token) + (int64_t(row.head) * row.group + r % row.group) * p.cache.desc.head_dim;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/* Leaves out NaN. */
__device__ __forceinline__ void add_score(Share &share, float score) {
  if (!(score > -INFINITY)) return;
  const float largest = fmaxf(share.largest, score);
  share.sum = share.sum * exp2_fast(share.largest - largest) + exp2_fast(score - largest);
  share.largest = largest;
}

__device__ __forceinline__ void add_share(Share &share, const Share &other) {
  if (other.sum == 0) return;
  const float largest = fmaxf(share.largest, other.largest);
  share.sum = share.sum * exp2_fast(share.largest - largest) + other.sum * exp2_fast(other.largest - largest);
  share.largest = largest;
}

/* log2 of a row's sum over all chunks; infinite for a row that does not exist, so that its shares are 0. */
__device__ __forceinline__ float row_total(const ChooseLaunch &launch, const PromptRow &row, int32_t r) {
  if (r >= row.rows) return INFINITY;
  Share all{-INFINITY, 0};
  for (int chunk = 0; chunk < launch.chunks; chunk++) add_share(all, launch.shares[(row.index * launch.chunks + chunk) * launch.rows + r]);
  return all.largest + log2f(all.sum);
}

/* The queries of a tile in shared memory, in 16 bits, and what belongs to each. */
template <typename T, int D>
struct ChooseShared {
  static constexpr int kPitch = D + 32; /* numbers from row to row, so that 8 lanes read two rows without bank conflicts */
  T *first, *second; /* [rows, kPitch]: the query, or its positive part; its squares, or its negative part */
  float *factor, *spread, *total; /* [rows] */

  static PS_HOST_DEVICE int64_t bytes(int64_t rows, bool two) { return rows * (kPitch * 2 * (two ? 2 : 1) + 3 * int64_t(sizeof(float))); }

  __device__ ChooseShared(unsigned char *memory, int32_t rows, bool two) {
    factor = reinterpret_cast<float *>(memory);
    spread = factor + rows;
    total = spread + rows;
    first = reinterpret_cast<T *>(total + rows);
    second = two ? first + rows * kPitch : first;
  }
};

/* A power of two per row keeps queries, and their squares, in the range of 16 bits. */
template <typename T, int D, bool kTwo>
__device__ __forceinline__ void load_rows(const ChooseLaunch &launch, const PromptRow &row, ChooseShared<T, D> &shared) {
  const PrefillChooseParams &p = launch.p;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const bool quest = p.scorer == PS_QUEST;
  for (int r = warp; r < launch.rows; r += kWarps) {
    const bool used = r < row.rows;
    const float *q = row_query(p, row, used ? r : 0);
    float x[D / kWarp], largest = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < D / kWarp; i++) {
      x[i] = used ? q[i * kWarp + lane] : 0.f;
      squares += x[i] * x[i];
      largest = fmaxf(largest, fabsf(x[i]));
    }
    squares = warp_sum(squares);
    largest = warp_max_nan(largest);
    const int exponent = largest > 0 && isfinite(largest) ? ilogbf(largest) : 0;
    const float down = ldexpf(1.f, -exponent);
#pragma unroll
    for (int i = 0; i < D / kWarp; i++) {
      const float small = x[i] * down, positive = small > 0 ? small : 0;
      store_number(shared.first + r * ChooseShared<T, D>::kPitch + i * kWarp + lane, quest ? positive : small);
      if constexpr (kTwo) store_number(shared.second + r * ChooseShared<T, D>::kPitch + i * kWarp + lane, quest ? small - positive : small * small);
    }
    if (lane == 0) {
      shared.factor[r] = ldexpf(1.f, exponent);
      shared.spread[r] = p.scorer == PS_UNIQUE ? p.lambda * sqrtf(squares) : 0.f;
    }
  }
}

/* 16 pages of statistics as this lane (g, t) reads them: 8 numbers of pages g and g + 8 at a time. The order of dimensions does not matter to
 * a dot product, so the queries are read to match. */
template <typename T, int D>
struct PageTile {
  uint4 low[D / 32], high[D / 32];

  __device__ __forceinline__ void load(const T *rows, const int32_t (&physical)[2]) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      low[j] = __ldg(reinterpret_cast<const uint4 *>(rows + int64_t(physical[0]) * D + 32 * j + 8 * t));
      high[j] = __ldg(reinterpret_cast<const uint4 *>(rows + int64_t(physical[1]) * D + 32 * j + 8 * t));
    }
  }

  /* out[n]: scores of pages g, g + 8 and rows 8 n + 2 t, 8 n + 2 t + 1 */
  __device__ __forceinline__ void multiply(const T *queries, float (&out)[kRowBlock / 8][4]) const {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kRowBlock / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) out[n][i] = 0.f;
    }
#pragma unroll
    for (int j = 0; j < D / 32; j++) {
      const uint32_t a[2][4] = {{low[j].x, high[j].x, low[j].y, high[j].y}, {low[j].z, high[j].z, low[j].w, high[j].w}};
#pragma unroll
      for (int n = 0; n < kRowBlock / 8; n++) {
        const uint4 b = *reinterpret_cast<const uint4 *>(queries + (8 * n + g) * ChooseShared<T, D>::kPitch + 32 * j + 8 * t);
        multiply_add<T>(out[n], a[0], b.x, b.y);
        multiply_add<T>(out[n], a[1], b.z, b.w);
      }
    }
  }
};

/* What a launch reads of a KV head: rows of statistics of all physical pages. */
template <typename T>
struct HeadStatistics {
  const T *first, *second;
  const float *std;

  __device__ HeadStatistics(const PrefillChooseParams &p, int32_t head) {
    const Layout layout(p.cache.desc);
    const int64_t offset = layout.vector(p.layer, head, 0);
    const bool quest = p.scorer == PS_QUEST;
    first = static_cast<const T *>(quest ? p.cache.max : p.cache.mean) + offset;
    second = p.scorer == PS_DIAG ? static_cast<const T *>(p.cache.variance) + offset : quest ? static_cast<const T *>(p.cache.min) + offset : nullptr;
    std = p.cache.std + layout.page(p.layer, head, 0);
  }
};

}  // namespace
}  // namespace ps
