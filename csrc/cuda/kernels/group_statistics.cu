/* Renews the statistics of groups whose pages were renewed. */
#include "group_statistics.h"

#include "group_statistics.cuh"

namespace ps {
namespace {

template <typename T>
__global__ void __launch_bounds__(kStatisticsThreads)
    groups_kernel(const __grid_constant__ CacheView cache, const int32_t *slots, int64_t tokens, int32_t layer) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  const int64_t token = blockIdx.x;
  const int32_t slot = slots[token], page_size = cache.desc.page_size;
  if (slot < 0 || slot >= cache.desc.num_pages * page_size || is_continued(slots, tokens, token, page_size * cache.desc.group_pages)) return;
  renew_group<T>(cache, layer, blockIdx.y, slot / page_size, slot % page_size + 1, shared);
}

template <typename T>
__global__ void __launch_bounds__(kStatisticsThreads) group_kernel(const __grid_constant__ CacheView cache, int32_t page, int32_t num_tokens) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  renew_group<T>(cache, blockIdx.x, blockIdx.y, page, num_tokens, shared);
}

}  // namespace

void renew_groups(Backend &backend, const CacheView &cache, int32_t layer, const int32_t *slots, int64_t tokens) {
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(cache.desc.num_kv_heads));
  with_dtype(cache.desc.dtype, [&](auto type) {
    launch(backend, "Could not launch group_statistics", groups_kernel<decltype(type)>, grid, dim3(kStatisticsThreads), 0, cache, slots, tokens,
           layer);
  });
}

void renew_group_of(Backend &backend, const CacheView &cache, int32_t page, int32_t num_tokens) {
  const dim3 grid(static_cast<unsigned>(cache.desc.num_layers), static_cast<unsigned>(cache.desc.num_kv_heads));
  with_dtype(cache.desc.dtype, [&](auto type) {
    launch(backend, "Could not launch group_statistics", group_kernel<decltype(type)>, grid, dim3(kStatisticsThreads), 0, cache, page, num_tokens);
  });
}

}  // namespace ps
