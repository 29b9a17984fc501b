/* Stores keys and values in their pages and renews the statistics of every page touched, from the keys as stored
 * (tests/reference/page_statistics.ts).
 *
 * The block of the last token of a page in the call does all the work on that page and head, so no two blocks meet. It reads
 * up to S tokens of 8 d bytes and writes as much in the type of keys and values, and one row of statistics. */
#include "append_kv.cuh"
#include "group_statistics.h"

namespace ps {
namespace {

constexpr int64_t kFewAppended = 256; /* of a decode step or a short prompt: a group's pages then lie in one block's hands */

/* Rows in 8 bits are a warp's each, and end with a barrier; other numbers stay with the thread of their dimension. */
template <typename Kv>
__device__ __forceinline__ void store_tokens(const AppendKvParams &p, int64_t head, const PageRows<Kv> &page, const int32_t *source, int count) {
  const Layout layout(p.cache.desc);
  const int64_t first = head * layout.head_dim;
  if constexpr (kIsScaled<Kv>) {
    for (int place = threadIdx.x / kWarp; place < count; place += kStatisticsThreads / kWarp) {
      if (source[place] < 0) continue;
      const float *k = p.k.row(source[place]) + first, *v = p.v.row(source[place]) + first;
      store_scaled_row(layout, place, k, page.keys, page.key_scales);
      store_scaled_row(layout, place, v, page.values, page.value_scales);
    }
    __syncthreads();
  } else {
    for (int dim = threadIdx.x; dim < layout.head_dim; dim += kStatisticsThreads) {
      for (int place = 0; place < count; place++) {
        if (source[place] < 0) continue;
        const int64_t at = layout.inside(sizeof(Kv), place, dim);
        store_number(page.keys + at, p.k.row(source[place])[first + dim]);
        store_number(page.values + at, p.v.row(source[place])[first + dim]);
      }
    }
  }
}

/* Grouped: a block takes all pages of a group that the call touches, and the group's own statistics. */
template <typename T, typename Kv, bool Grouped>
__global__ void __launch_bounds__(kStatisticsThreads) append_kernel(const __grid_constant__ AppendKvParams p, BadIndex *bad_index) {
  __shared__ Sources<Grouped ? kMaxGroupPages : 1> sources;
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t token = blockIdx.x, head = blockIdx.y, limit = desc.num_pages * desc.page_size;
  const int32_t slot = p.slots[token], unit_pages = Grouped ? desc.group_pages : 1, unit_tokens = unit_pages * desc.page_size;
  if (slot < 0 || slot >= limit) {
    if (threadIdx.x == 0) note_bad_index(bad_index, kSlots, token, slot, limit);
    return;
  }
  if (is_continued(p.slots, p.tokens, token, unit_tokens)) return;
  const int32_t unit = slot / unit_tokens;
  sources.find(p, token, unit, unit_tokens);
  for (int i = 0; i < unit_pages; i++) {
    const int32_t *of_page = sources.token + i * desc.page_size;
    const int count = sources.end[i];
    if (count == 0) continue;
    const PageRows<Kv> page = page_rows<Kv>(p.cache, p.layer, head, unit * unit_pages + i);
    store_tokens(p, head, page, of_page, count);
    renew_statistics<T>(p.cache, page, count, shared);
  }
  if (!Grouped) return;
  __syncthreads();
  renew_group<T>(p.cache, p.layer, head, slot / desc.page_size, slot % desc.page_size + 1, shared);
}

template <typename T, typename Kv>
__global__ void __launch_bounds__(kStatisticsThreads) statistics_kernel(const __grid_constant__ PageStatisticsParams p) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  renew_statistics<T>(p.cache, page_rows<Kv>(p.cache, blockIdx.x, blockIdx.y, p.page), p.num_tokens, shared);
}

}  // namespace

void append_kv(Backend &backend, const AppendKvParams &params) {
  note_written(backend, params.cache, params.layer);
  const dim3 grid(static_cast<unsigned>(params.tokens), static_cast<unsigned>(params.cache.desc.num_kv_heads));
  const bool grouped = params.cache.group_mean && params.tokens <= kFewAppended;
  with_cache_types(params.cache.desc, [&](auto type, auto kv) {
    using T = decltype(type);
    using Kv = decltype(kv);
    launch(backend, "Could not launch append_kv", grouped ? append_kernel<T, Kv, true> : append_kernel<T, Kv, false>, grid, dim3(kStatisticsThreads),
           0, params, backend.bad_index);
  });
  if (params.cache.group_mean && !grouped) renew_groups(backend, params.cache, params.layer, params.slots, params.tokens);
}

void page_statistics(Backend &backend, const PageStatisticsParams &params) {
  note_written(backend, params.cache, kAllLayers);
  const ps_cache_desc &desc = params.cache.desc;
  const dim3 grid(static_cast<unsigned>(desc.num_layers), static_cast<unsigned>(desc.num_kv_heads));
  with_cache_types(desc, [&](auto type, auto kv) {
    launch(backend, "Could not launch page_statistics", statistics_kernel<decltype(type), decltype(kv)>, grid, dim3(kStatisticsThreads), 0, params);
  });
  if (params.cache.group_mean) renew_group_of(backend, params.cache, params.page, params.num_tokens);
}

}  // namespace ps
