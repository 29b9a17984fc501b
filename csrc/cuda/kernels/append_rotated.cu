/* Norm and rotation of the heads of queries and keys, and append_kv of the keys, in one launch. Bound by latency in a decode step:
 * the four launches that it replaces moved little and each waited for the one before.
 *
 * Blocks below Hk append: a token that has its page (its group of pages, where the cache has them) to itself, as all have in a decode step, by
 * append_token; others as append_kv.cu does, where the block of the last token of a page or group takes all the call's keys of it, which
 * its warps norm and rotate on their way. The other blocks take a few query heads of their token each, a warp a head. */
#include "../../append_rotated_parts.h"
#include "append_rotated.cuh"

namespace ps {
namespace {

constexpr int kWarps = kStatisticsThreads / kWarp;

template <int Packs>
__device__ __forceinline__ void rotate_queries(const AppendRotatedParams &p, int64_t token, int first_head, float *row) {
  const ps_cache_desc &desc = p.append.cache.desc;
  const int head = first_head + threadIdx.x / kWarp;
  if (head >= desc.num_query_heads) return;
  float *q = p.q.row(token) + head * desc.head_dim;
  rotate_head<Packs>(p, q, p.q_norm, p.q_table.row(token), row);
  for (int dim = threadIdx.x % kWarp * kNumbers; dim < desc.head_dim; dim += kPackWidth)
    store_pack<kNumbers>(q + dim, load_pack<kNumbers>(row + dim));
}

/* Stores the tokens of a page, a warp a token; ends with a barrier. */
template <typename Kv, int Packs>
__device__ __forceinline__ void store_rotated(const AppendRotatedParams &p, int64_t head, const PageRows<Kv> &page, const int32_t *source, int count,
                                              float *row) {
  const Layout layout(p.append.cache.desc);
  const int64_t first = head * layout.head_dim;
  for (int place = threadIdx.x / kWarp; place < count; place += kWarps) {
    const int32_t token = source[place];
    if (token < 0) continue;
    rotate_head<Packs>(p, p.k.row(token) + first, p.k_norm, p.k_table.row(token), row);
    const float *v = p.append.v.row(token) + first;
    if constexpr (kIsScaled<Kv>) {
      store_scaled_row(layout, place, row, page.keys, page.key_scales);
      store_scaled_row(layout, place, v, page.values, page.value_scales);
    } else {
      for (int dim = threadIdx.x % kWarp; dim < layout.head_dim; dim += kWarp) {
        const int64_t at = layout.inside(sizeof(Kv), place, dim);
        store_number(page.keys + at, row[dim]);
        store_number(page.values + at, v[dim]);
      }
    }
    __syncwarp();
  }
  __syncthreads();
}

template <typename T, typename Kv, bool Grouped, int Packs>
__global__ void __launch_bounds__(kStatisticsThreads, Packs == 1 ? 7 : 1)
    rotated_kernel(const __grid_constant__ AppendRotatedParams p, BadIndex *bad_index, bool at_rest, bool lets_next_start) {
  __shared__ Sources<Grouped ? kMaxGroupPages : 1> sources;
  __shared__ float shared[kWarp];
  __shared__ alignas(16) float rows[kWarps][Packs * kPackWidth];
  if (lets_next_start) let_next_start();
  const AppendKvParams &append = p.append;
  const ps_cache_desc &desc = append.cache.desc;
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  float *row = rows[threadIdx.x / kWarp];
  if (head >= desc.num_kv_heads) {
    wait_for_previous();
    let_next_start();
    return rotate_queries<Packs>(p, token, (head - desc.num_kv_heads) * kWarps, row);
  }
  const int32_t unit_pages = Grouped ? desc.group_pages : 1, unit_tokens = unit_pages * desc.page_size;
  if constexpr (!kIsScaled<Kv>) {
    if (at_rest && is_alone(append.slots, append.tokens, token, unit_tokens))
      return append_token<T, Kv, Grouped, Packs>(p, token, head, bad_index, rows[0], shared);
  }
  wait_for_previous();
  let_next_start();
  const int64_t limit = desc.num_pages * desc.page_size;
  const int32_t slot = append.slots[token];
  if (slot < 0 || slot >= limit) {
    if (threadIdx.x == 0) note_bad_index(bad_index, kSlots, token, slot, limit);
    return;
  }
  if (is_continued(append.slots, append.tokens, token, unit_tokens)) return;
  const int32_t unit = slot / unit_tokens;
  sources.find(append, token, unit, unit_tokens);
  for (int i = 0; i < unit_pages; i++) {
    const int32_t *of_page = sources.token + i * desc.page_size;
    const int count = sources.end[i];
    if (count == 0) continue;
    const PageRows<Kv> page = page_rows<Kv>(append.cache, append.layer, head, unit * unit_pages + i);
    store_rotated<Kv, Packs>(p, head, page, of_page, count, row);
    renew_statistics<T, kDimsAThread<Packs>>(append.cache, page, count, shared);
  }
  if (!Grouped) return;
  __syncthreads();
  renew_group<T, kDimsAThread<Packs>>(append.cache, append.layer, head, slot / desc.page_size, slot % desc.page_size + 1, shared);
}

}  // namespace

void append_rotated(Backend &backend, const AppendRotatedParams &params) {
  if (!can_rotate(params)) return append_rotated_parts(backend, params);
  const bool at_rest = note_written(backend, params.append.cache, params.append.layer) && appends_tokens(params.append.cache);
  const ps_cache_desc &desc = params.append.cache.desc;
  const dim3 grid(static_cast<unsigned>(params.append.tokens), static_cast<unsigned>(desc.num_kv_heads + ceil_div(desc.num_query_heads, kWarps)));
  /* At once only where the next kernel has so many blocks that they fill the device: fewer would crowd where these blocks leave room first. */
  const bool lets_next_start = params.append.tokens == 1 || params.append.tokens * desc.num_kv_heads > 2 * backend.multiprocessors;
  const bool grouped = params.append.cache.group_mean, wide = desc.head_dim > kPackWidth;
  with_cache_types(desc, [&](auto type, auto kv) {
    using T = decltype(type);
    using Kv = decltype(kv);
    constexpr int kWide = kMostHeadDim / kPackWidth;
    auto *kernel = grouped ? wide ? rotated_kernel<T, Kv, true, kWide> : rotated_kernel<T, Kv, true, 1>
                   : wide  ? rotated_kernel<T, Kv, false, kWide>
                           : rotated_kernel<T, Kv, false, 1>;
    launch(backend, "Could not launch append_rotated", kernel, grid, dim3(kStatisticsThreads), 0, params, backend.bad_index, at_rest,
           lets_next_start);
  });
}

}  // namespace ps
