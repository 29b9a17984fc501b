/* What a cache stores for its smallest part that changes hands: a page, or a group of pages if the cache has groups. */
#pragma once

#include <array>

#include "tensors.h"

namespace ps {

inline int32_t pages_of_unit(const ps_cache_desc &desc) { return desc.group_pages > 0 ? desc.group_pages : 1; }

/* A pool of a cache, and the bytes of one unit in it per layer and KV head; 0 if the cache does not store it. */
struct UnitField {
  void *pool;
  int64_t bytes;
};

inline std::array<UnitField, 12> unit_fields(const CacheView &view) {
  const ps_cache_desc &desc = view.desc;
  const int64_t pages = pages_of_unit(desc), tokens = pages * desc.page_size, number = dtype_bytes(desc.dtype);
  const bool small = desc.kv_type != PS_KV_DTYPE, f8 = desc.statistics & PS_STATISTICS_F8;
  const int64_t kv = tokens * desc.head_dim * (small ? 1 : number), scale = small ? tokens * 4 : 0;
  const int64_t vector = pages * desc.head_dim * number;
  const int64_t variance = desc.statistics & PS_STATISTICS_VARIANCE ? vector : 0, limit = desc.statistics & PS_STATISTICS_MIN_MAX ? vector : 0;
  const bool groups = kKeepsGroups && desc.group_pages > 0;
  return {{{view.keys, kv},
           {view.values, kv},
           {view.key_scale, scale},
           {view.value_scale, scale},
           {view.mean, f8 ? pages * desc.head_dim : vector},
           {view.mean_scale, f8 ? pages * 4 : 0},
           {view.std, pages * 4},
           {view.variance, variance},
           {view.min, limit},
           {view.max, limit},
           {view.group_mean, groups ? desc.head_dim * number : 0},
           {view.group_std, groups ? 4 : 0}}};
}

/* Bytes of a unit in all layers and KV heads. */
inline int64_t unit_bytes(const ps_cache_desc &desc) {
  CacheView view{};
  view.desc = desc;
  int64_t sum = 0;
  for (const UnitField &field : unit_fields(view)) sum += field.bytes;
  return sum * desc.num_layers * desc.num_kv_heads;
}

}  // namespace ps
