/* What a cache stores for its smallest part that changes hands: a page, or a group of pages if the cache has groups. */
#pragma once

#include <array>

#include "../coarse_statistics.h"
#include "tensors.h"

namespace ps {

inline int32_t pages_of_unit(const ps_cache_desc &desc) { return desc.group_pages > 0 ? desc.group_pages : 1; }

/* The pools of a cache, in their order in its memory. */
enum Pool {
  kKeys,
  kValues,
  kKeyScale,
  kValueScale,
  kMean,
  kMeanScale,
  kStd,
  kVariance,
  kMin,
  kMax,
  kCoarse,
  kCoarseScale,
  kGroupMean,
  kGroupStd,
  kPools
};

/* Bytes of one unit in each pool, per layer and KV head; 0 if the cache does not have the pool. */
inline std::array<int64_t, kPools> pool_bytes(const ps_cache_desc &desc) {
  const int64_t pages = pages_of_unit(desc), tokens = pages * desc.page_size, number = dtype_bytes(desc.dtype);
  const bool small = desc.kv_type != PS_KV_DTYPE, f8 = desc.statistics & PS_STATISTICS_F8, groups = kKeepsGroups && desc.group_pages > 0;
  const bool variance = desc.statistics & PS_STATISTICS_VARIANCE, coarse = keeps_coarse(desc);
  const int64_t vector = pages * desc.head_dim * number;
  std::array<int64_t, kPools> bytes{};
  bytes[kKeys] = bytes[kValues] = tokens * desc.head_dim * (small ? 1 : number);
  bytes[kKeyScale] = bytes[kValueScale] = small ? tokens * 4 : 0;
  bytes[kMean] = f8 ? pages * desc.head_dim : vector;
  bytes[kMeanScale] = f8 ? pages * 4 : 0;
  bytes[kStd] = pages * 4;
  bytes[kVariance] = variance ? vector : 0;
  bytes[kMin] = bytes[kMax] = desc.statistics & PS_STATISTICS_MIN_MAX ? vector : 0;
  bytes[kCoarse] = coarse ? pages * coarse_row_bytes(desc.head_dim, variance) : 0;
  bytes[kCoarseScale] = coarse ? pages * 4 : 0;
  bytes[kGroupMean] = groups ? desc.head_dim * number : 0;
  bytes[kGroupStd] = groups ? 4 : 0;
  return bytes;
}

inline std::array<void *, kPools> pools_of(const CacheView &view) {
  return {view.keys,     view.values, view.key_scale, view.value_scale, view.mean,         view.mean_scale, view.std,
          view.variance, view.min,    view.max,       view.coarse,      view.coarse_scale, view.group_mean, view.group_std};
}

/* Bytes of a unit in all layers and KV heads. */
inline int64_t unit_bytes(const ps_cache_desc &desc) {
  int64_t sum = 0;
  for (int64_t bytes : pool_bytes(desc)) sum += bytes;
  return sum * desc.num_layers * desc.num_kv_heads;
}

}  // namespace ps
