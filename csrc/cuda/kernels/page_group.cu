/* Statistics of groups of pages: mean and spread of all keys of up to 8 pages, from the pages' own. Pages of a group fill in order,
 * so those before the last one are full. Reads 8 rows of d numbers a group. */
#include "page_group.h"

#include "../layout.cuh"
#include "append_run.cuh"

namespace ps {
namespace {

constexpr int kThreads = 128;
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
    const int dim = threadIdx.x + n * kThreads;
    if (dim >= desc.head_dim) continue;
    const float origin = to_float(means[dim]), base = isfinite(origin) ? origin : 0; /* equal pages give exactly their mean */
    float sum = 0;
    for (int i = 0; i <= full; i++) sum += weight(i) * (to_float(means[i * desc.head_dim + dim]) - base);
    const float mean = base + sum / tokens;
    for (int i = 0; i <= full; i++) {
      const float distance = to_float(means[i * desc.head_dim + dim]) - mean;
      spread += weight(i) * distance * distance;
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

template <typename T>
__global__ void __launch_bounds__(kThreads) groups_kernel(const __grid_constant__ CacheView cache, const int32_t *slots, int64_t tokens, int32_t layer) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  const int64_t token = blockIdx.x;
  const int32_t slot = slots[token], page_size = cache.desc.page_size;
  if (slot < 0 || slot >= cache.desc.num_pages * page_size || is_continued(slots, tokens, token, page_size * cache.desc.group_pages)) return;
  renew_group<T>(cache, layer, blockIdx.y, slot / page_size, slot % page_size + 1, shared);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) group_kernel(const __grid_constant__ CacheView cache, int32_t page, int32_t num_tokens) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  renew_group<T>(cache, blockIdx.x, blockIdx.y, page, num_tokens, shared);
}

}  // namespace

void renew_groups(Backend &backend, const CacheView &cache, int32_t layer, const int32_t *slots, int64_t tokens) {
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(cache.desc.num_kv_heads));
  with_dtype(cache.desc.dtype, [&](auto type) {
    launch(backend, "Could not launch page_group", groups_kernel<decltype(type)>, grid, dim3(kThreads), 0, cache, slots, tokens, layer);
  });
}

void renew_group_of(Backend &backend, const CacheView &cache, int32_t page, int32_t num_tokens) {
  const dim3 grid(static_cast<unsigned>(cache.desc.num_layers), static_cast<unsigned>(cache.desc.num_kv_heads));
  with_dtype(cache.desc.dtype, [&](auto type) {
    launch(backend, "Could not launch page_group", group_kernel<decltype(type)>, grid, dim3(kThreads), 0, cache, page, num_tokens);
  });
}

}  // namespace ps
