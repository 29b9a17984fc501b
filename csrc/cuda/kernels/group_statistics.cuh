/* Statistics of a group of pages: mean and spread of all keys of up to 8 pages, from the pages' own. Pages of a group fill in order, so
 * those before the last one are full. Reads 8 rows of d numbers a group. */
#pragma once

#include "../layout.cuh"
#include "append_run.cuh"

namespace ps {

constexpr int kMaxGroupPages = 8;
constexpr int kStatisticsThreads = 128;
constexpr int kNumbersAThread = 4; /* of up to 512 dimensions */

/* The group of physical page `page`, which is its last and holds `count` tokens. All threads of the block call. */
template <typename T>
__device__ void renew_group(const CacheView &cache, int64_t layer, int64_t head, int32_t page, int32_t count, float *shared) {
  const ps_cache_desc &desc = cache.desc;
  const Layout layout(desc);
  const int32_t group = page / desc.group_pages, first = group * desc.group_pages, full = page - first;
  const float tokens = static_cast<float>(full * desc.page_size + count);
  const int64_t single = layout.page(layer, head, first), out = (layer * desc.num_kv_heads + head) * (desc.num_pages / desc.group_pages) + group;
  const T *means = static_cast<const T *>(cache.mean) + single * desc.head_dim;
  auto weight = [&](int i) { return static_cast<float>(i < full ? desc.page_size : count); };
  float spread = 0;
#pragma unroll
  for (int n = 0; n < kNumbersAThread; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    if (dim >= desc.head_dim) continue;
    const float origin = to_float(means[dim]), base = isfinite(origin) ? origin : 0; /* equal pages give exactly their mean */
    float of_page[kMaxGroupPages], sum = 0; /* all at once */
#pragma unroll
    for (int i = 0; i < kMaxGroupPages; i++) of_page[i] = i <= full ? to_float(means[i * desc.head_dim + dim]) : base;
#pragma unroll
    for (int i = 0; i < kMaxGroupPages; i++) sum += i <= full ? weight(i) * (of_page[i] - base) : 0.f;
    const float mean = base + sum / tokens;
#pragma unroll
    for (int i = 0; i < kMaxGroupPages; i++) {
      const float distance = of_page[i] - mean;
      spread += i <= full ? weight(i) * distance * distance : 0.f;
    }
    store_number(static_cast<T *>(cache.group_mean) + out * desc.head_dim + dim, mean);
  }
  if (static_cast<int>(threadIdx.x) <= full) {
    const float std = cache.std[single + threadIdx.x];
    spread += weight(threadIdx.x) * std * std;
  }
  spread = block_sum(spread, shared);
  if (threadIdx.x == 0) cache.group_std[out] = sqrtf(spread / tokens);
}

}  // namespace ps
