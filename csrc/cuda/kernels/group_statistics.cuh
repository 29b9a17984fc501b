/* Statistics of a group of pages: mean and spread of all keys of up to 8 pages, from the pages' own. Pages of a group fill in order, so
 * those before the last one are full. Reads 8 rows of d numbers a group. */
#pragma once

#include "../layout.cuh"
#include "append_run.cuh"

namespace ps {

constexpr int kMaxGroupPages = 8;
constexpr int kStatisticsThreads = 128;
constexpr int kNumbersAThread = 4; /* of up to 512 dimensions */

/* The group of a physical page that is its last and holds `count` tokens. */
struct Group {
  int32_t first, full; /* page, and pages before the last one */
  int64_t single, out; /* the first page's row of statistics, and the group's */

  __device__ __forceinline__ Group(const CacheView &cache, int64_t layer, int64_t head, int32_t page) {
    const ps_cache_desc &desc = cache.desc;
    const int32_t group = page / desc.group_pages;
    first = group * desc.group_pages, full = page - first;
    single = Layout(desc).page(layer, head, first);
    out = (layer * desc.num_kv_heads + head) * (desc.num_pages / desc.group_pages) + group;
  }
};

/* This thread's means of a group's pages [0, end), and the spread of page threadIdx.x. Dims: of a head, per thread. */
template <int Dims>
struct GroupPages {
  float mean[Dims][kMaxGroupPages], std;

  template <typename T>
  __device__ __forceinline__ void load(const CacheView &cache, const Group &group, int32_t end, T) {
    const int32_t d = cache.desc.head_dim;
    const T *means = static_cast<const T *>(cache.mean) + group.single * d;
#pragma unroll
    for (int n = 0; n < Dims; n++) {
      const int dim = threadIdx.x + n * kStatisticsThreads;
#pragma unroll
      for (int i = 0; i < kMaxGroupPages; i++) mean[n][i] = dim < d && i < end ? to_float(means[i * d + dim]) : 0.f; /* all at once */
    }
    std = static_cast<int>(threadIdx.x) < end ? cache.std[group.single + threadIdx.x] : 0.f;
  }
};

/* Writes the statistics of a group whose last page holds `count` tokens. All threads of the block call. */
template <typename T, int Dims>
__device__ void store_group(const CacheView &cache, const Group &group, const GroupPages<Dims> &pages, int32_t count, float *shared) {
  const ps_cache_desc &desc = cache.desc;
  const int32_t full = group.full;
  const float tokens = static_cast<float>(full * desc.page_size + count);
  auto weight = [&](int i) { return static_cast<float>(i < full ? desc.page_size : count); };
  float spread = 0;
#pragma unroll
  for (int n = 0; n < Dims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    if (dim >= desc.head_dim) continue;
    const float (&of_page)[kMaxGroupPages] = pages.mean[n];
    const float base = isfinite(of_page[0]) ? of_page[0] : 0; /* equal pages give exactly their mean */
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kMaxGroupPages; i++) sum += i <= full ? weight(i) * (of_page[i] - base) : 0.f;
    const float mean = base + sum / tokens;
#pragma unroll
    for (int i = 0; i < kMaxGroupPages; i++) {
      const float distance = of_page[i] - mean;
      spread += i <= full ? weight(i) * distance * distance : 0.f;
    }
    store_number(static_cast<T *>(cache.group_mean) + group.out * desc.head_dim + dim, mean);
  }
  if (static_cast<int>(threadIdx.x) <= full) spread += weight(threadIdx.x) * pages.std * pages.std;
  spread = block_sum(spread, shared);
  if (threadIdx.x == 0) cache.group_std[group.out] = sqrtf(spread / tokens);
}

/* The group of physical page `page`, which is its last and holds `count` tokens, from the statistics of its pages. All threads call. */
template <typename T, int Dims = kNumbersAThread>
__device__ void renew_group(const CacheView &cache, int64_t layer, int64_t head, int32_t page, int32_t count, float *shared) {
  const Group group(cache, layer, head, page);
  GroupPages<Dims> pages;
  pages.load(cache, group, group.full + 1, T{});
  store_group<T>(cache, group, pages, count, shared);
}

}  // namespace ps
