/* How many groups of pages are chosen before their pages, and how they are scored. */
#pragma once

#include "score_tile.cuh"
#include "select.cuh"

namespace ps {

constexpr int kGroupShift = 3, kGroupPages = 1 << kGroupShift;
static_assert(kGroupPages == kTilePages, "A group is a tile of the score's product");
constexpr float kLeastGroupLambda = 0.5f; /* a group's mean alone says too little of its best page */

/* Weight of the spread in a group's score. */
inline PS_HOST_DEVICE float group_lambda(const PageScoreParams &p) {
  return p.scorer == PS_MEAN || p.lambda < kLeastGroupLambda ? kLeastGroupLambda : p.lambda;
}

/* Groups that are chosen of so many: half as many again as the pages that are wanted, and at least a tenth; more than the forced pages
 * can make useless. Fewer would lose pages (docs/performance.md, recall). */
inline PS_HOST_DEVICE int64_t groups_wanted(const PageSelectParams &p, int64_t groups) {
  const int64_t forced = (int64_t(p.sink_pages) + p.recent_pages < p.k ? int64_t(p.sink_pages) + p.recent_pages : p.k) / kGroupPages + 4;
  const int64_t share = p.k + p.k / 2 > groups / 10 ? p.k + p.k / 2 : groups / 10;
  return share > forced ? share : forced;
}

/* The same of a row that has so many groups. */
__device__ __forceinline__ int32_t groups_taken(const PageSelectParams &p, int32_t groups) {
  return min(static_cast<int32_t>(groups_wanted(p, groups)), groups);
}

/* Groups that are chosen whatever they score: that of the newest page, where recent pages are. Then no choice waits for the newest token. */
__device__ __forceinline__ int32_t groups_given(const Forced &forced) { return forced.last > 0 ? 1 : 0; }

/* Statistics of one layer and KV head that a level of scoring reads. */
template <typename T>
struct Level {
  const T *means;
  const float *std;
  float lambda;
};

template <typename T>
__device__ __forceinline__ Level<T> page_level(const PageScoreParams &p, int64_t head) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = (p.layer * int64_t(desc.num_kv_heads) + head) * desc.num_pages;
  return {static_cast<const T *>(p.cache.mean) + row * desc.head_dim, p.cache.std + row, p.scorer == PS_MEAN ? 0.f : p.lambda};
}

template <typename T>
__device__ __forceinline__ Level<T> group_level(const PageScoreParams &p, int64_t head) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = (p.layer * int64_t(desc.num_kv_heads) + head) * (desc.num_pages >> kGroupShift);
  return {static_cast<const T *>(p.cache.group_mean) + row * desc.head_dim, p.cache.group_std + row, group_lambda(p)};
}

/* Scores tiles of 8 rows of statistics, Tiles at a time a warp. row_of(tile): the row of this lane's page g, looked up one round before it
 * is read. emit(tile, i, score): of row i of the tile. All scores come before the first is emitted, so that tiles do not wait for each other. */
template <typename T, int D, int Blocks, int Tiles, typename RowOf, typename Emit>
__device__ __forceinline__ void score_tiles(const PlainQueries<T, D, Blocks> &q, int group, const Level<T> &level, int32_t tiles, const RowOf &row_of,
                                            const Emit &emit) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp, g = lane / 4, t = lane % 4;
  auto tile_of = [&](int32_t first, int i) { return first + i * warps + warp; }; /* so that few tiles still occupy all warps */
  int32_t next[Tiles]; /* beyond the last tile: row 0, read but not used */
#pragma unroll
  for (int i = 0; i < Tiles; i++) next[i] = tile_of(0, i) < tiles ? row_of(tile_of(0, i)) : 0;
  for (int32_t first = 0; tile_of(first, 0) < tiles; first += Tiles * warps) {
    PageRow<T, D> rows[Tiles];
    float std[Tiles];
#pragma unroll
    for (int i = 0; i < Tiles; i++) {
      load_page_row<T, D>(level.means, next[i], rows[i]);
      std[i] = level.std[next[i]];
      const int32_t ahead = tile_of(first + Tiles * warps, i);
      next[i] = ahead < tiles ? row_of(ahead) : 0;
    }
    float best[Tiles];
#pragma unroll
    for (int i = 0; i < Tiles; i++) best[i] = score_tile<T, D, Blocks>(q, group, level.lambda, rows[i], std[i], 1.f);
    if (g >= 2) continue;
#pragma unroll
    for (int i = 0; i < Tiles; i++) {
      if (tile_of(first, i) < tiles) emit(tile_of(first, i), 2 * t + g, best[i]);
    }
  }
}

}  // namespace ps
