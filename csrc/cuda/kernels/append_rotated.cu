/* Norm and rotation of the heads of queries and keys, and append_kv of the keys, in one launch. Bound by latency in a decode step:
 * the four launches that it replaces moved little and each waited for the one before.
 *
 * Blocks below Hk append as append_kv.cu does: the block of the last token of a page (of a group of pages, where the cache has them)
 * takes all the call's keys of it, which its warps norm and rotate on their way. The other blocks take a few query heads of their token
 * each, a warp a head. */
#include "../../append_rotated_parts.h"
#include "append_kv.cuh"
#include "pack.cuh"

namespace ps {
namespace {

constexpr int kWarps = kStatisticsThreads / kWarp;
constexpr int kNumbers = 4;                /* of a head, in a lane's pack */
constexpr int kPackWidth = kWarp * kNumbers; /* of a head, that a warp loads at once */
constexpr int kMostHeadDim = 512;
constexpr int64_t kFewAppended = 256;      /* more are a prompt, whose bytes count: the parts read and write in longer rows */

__device__ __forceinline__ Pack<float, kNumbers> load_typed(const Typed &row, int64_t index) {
  if (row.dtype == PS_F32) return load_pack<kNumbers>(static_cast<const float *>(row.data) + index);
  if (row.dtype == PS_F16) return load_pack<kNumbers>(static_cast<const f16 *>(row.data) + index);
  return load_pack<kNumbers>(static_cast<const bf16 *>(row.data) + index);
}

/* A head normed where there is a weight, and rotated, by one warp into its shared `row` [d]. Packs: d is at most that many times
 * kPackWidth. The arithmetic is that of rms_norm.cu and rope.cu. */
template <int Packs>
__device__ __forceinline__ void rotate_head(const AppendRotatedParams &p, const float *in, const Typed &weight, const float *table, float *row) {
  using Numbers = Pack<float, kNumbers>;
  const int d = p.append.cache.desc.head_dim, pairs = static_cast<int>(p.pairs), own = threadIdx.x % kWarp * kNumbers;
  Numbers x[Packs] = {}, factors[Packs] = {}, cosines[Packs] = {}, sines[Packs] = {};
#pragma unroll
  for (int i = 0; i < Packs; i++) { /* all at once */
    const int at = own + i * kPackWidth;
    if (at < d) x[i] = load_pack<kNumbers>(in + at);
    if (at < d && weight.data != nullptr) factors[i] = load_typed(weight, at);
    if (at < pairs) cosines[i] = load_pack<kNumbers>(table + at), sines[i] = load_pack<kNumbers>(table + pairs + at);
  }
  if (weight.data != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < Packs; i++) {
#pragma unroll
      for (int j = 0; j < kNumbers; j++) squares += x[i].value[j] * x[i].value[j];
    }
    const float scale = 1.f / sqrtf(warp_sum(squares) / static_cast<float>(d) + p.eps);
#pragma unroll
    for (int i = 0; i < Packs; i++) {
#pragma unroll
      for (int j = 0; j < kNumbers; j++) x[i].value[j] = x[i].value[j] * scale * factors[i].value[j];
    }
  }
#pragma unroll
  for (int i = 0; i < Packs; i++) {
    if (own + i * kPackWidth < d) store_pack<kNumbers>(row + own + i * kPackWidth, x[i]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < Packs; i++) {
    const int at = own + i * kPackWidth;
    if (at >= pairs) continue;
    Numbers a = load_pack<kNumbers>(row + at), b = load_pack<kNumbers>(row + pairs + at);
#pragma unroll
    for (int j = 0; j < kNumbers; j++) {
      const float first = a.value[j], second = b.value[j];
      a.value[j] = first * cosines[i].value[j] - second * sines[i].value[j];
      b.value[j] = second * cosines[i].value[j] + first * sines[i].value[j];
    }
    store_pack<kNumbers>(row + at, a);
    store_pack<kNumbers>(row + pairs + at, b);
  }
  __syncwarp();
}

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
__global__ void __launch_bounds__(kStatisticsThreads) rotated_kernel(const __grid_constant__ AppendRotatedParams p, BadIndex *bad_index) {
  __shared__ Sources<Grouped ? kMaxGroupPages : 1> sources;
  __shared__ float shared[kWarp];
  __shared__ alignas(16) float rows[kWarps][Packs * kPackWidth];
  let_next_start();
  wait_for_previous();
  const AppendKvParams &append = p.append;
  const ps_cache_desc &desc = append.cache.desc;
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  float *row = rows[threadIdx.x / kWarp];
  if (head >= desc.num_kv_heads) return rotate_queries<Packs>(p, token, (head - desc.num_kv_heads) * kWarps, row);
  const int64_t limit = desc.num_pages * desc.page_size;
  const int32_t slot = append.slots[token], unit_pages = Grouped ? desc.group_pages : 1, unit_tokens = unit_pages * desc.page_size;
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
    renew_statistics<T>(append.cache, page, count, shared);
  }
  if (!Grouped) return;
  __syncthreads();
  renew_group<T>(append.cache, append.layer, head, slot / desc.page_size, slot % desc.page_size + 1, shared);
}

/* One token, where no kernel under way writes pages of its layer: then its page's other keys and the statistics of the pages of its group are
 * loaded while the previous kernel still runs, and behind it one trip to memory remains. */
template <typename T, typename Kv, bool Grouped, int Packs>
__global__ void __launch_bounds__(kStatisticsThreads) rotated_token_kernel(const __grid_constant__ AppendRotatedParams p, BadIndex *bad_index) {
  constexpr int kDims = Packs == 1 ? 1 : kNumbersAThread; /* of a head, per thread */
  __shared__ float shared[kWarp];
  __shared__ alignas(16) float rows[kWarps][Packs * kPackWidth];
  let_next_start();
  const AppendKvParams &append = p.append;
  const CacheView &cache = append.cache;
  const ps_cache_desc &desc = cache.desc;
  const int head = static_cast<int>(blockIdx.y), d = desc.head_dim;
  float *row = rows[threadIdx.x / kWarp];
  if (head >= desc.num_kv_heads) {
    wait_for_previous();
    return rotate_queries<Packs>(p, 0, (head - desc.num_kv_heads) * kWarps, row);
  }
  const int64_t limit = desc.num_pages * desc.page_size;
  const int32_t slot = append.slots[0];
  if (slot < 0 || slot >= limit) {
    wait_for_previous();
    if (threadIdx.x == 0) note_bad_index(bad_index, kSlots, 0, slot, limit);
    return;
  }
  const int32_t physical = slot / desc.page_size, place = slot % desc.page_size;
  const PageRows<Kv> page = page_rows<Kv>(cache, append.layer, head, physical);
  const Layout layout(desc);
  float keys[kDims][kAtOnce] = {};
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) keys[n][i] = dim < d && i < place ? to_float(page.keys[layout.inside(sizeof(Kv), i, dim)]) : 0.f;
  }
  GroupPages<kDims> pages;
  if constexpr (Grouped) {
    const Group group(cache, append.layer, head, physical);
    pages.load(cache, group, group.full, T{});
  }

  wait_for_previous();
  const int64_t first = int64_t(head) * d;
  float values[kDims];
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    values[n] = dim < d ? append.v.row(0)[first + dim] : 0.f;
  }
  if (threadIdx.x < kWarp) rotate_head<Packs>(p, p.k.row(0) + first, p.k_norm, p.k_table.row(0), row);
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kDims; n++) {
    const int dim = threadIdx.x + n * kStatisticsThreads;
    if (dim >= d) continue;
    const int64_t at = layout.inside(sizeof(Kv), place, dim);
    Kv key;
    store_number(&key, rows[0][dim]);
    page.keys[at] = key;
    store_number(page.values + at, values[n]);
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) keys[n][i] = i == place ? to_float(key) : keys[n][i];
  }
  float mean[kNumbersAThread] = {};
  const float std = store_statistics<T>(cache, page, [&](int n, int) { return moments_of(keys[n < kDims ? n : 0], place + 1); }, mean, shared);
  if constexpr (Grouped) {
    const Group group(cache, append.layer, head, physical);
#pragma unroll
    for (int n = 0; n < kDims; n++) {
#pragma unroll
      for (int i = 0; i < kMaxGroupPages; i++) pages.mean[n][i] = i == group.full ? mean[n] : pages.mean[n][i];
    }
    if (static_cast<int>(threadIdx.x) == group.full) pages.std = std;
    store_group<T>(cache, group, pages, place + 1, shared);
  }
}

/* Whether the kernel for one token serves this call, if its pages are at rest. */
bool is_one_token(const AppendRotatedParams &p) {
  const CacheView &cache = p.append.cache;
  return p.append.tokens == 1 && cache.desc.page_size <= kAtOnce && cache.mean_scale == nullptr;
}

/* Whether rows let themselves be read in packs, and fit the warps' memory. */
bool fits(const AppendRotatedParams &p) {
  auto fits_norm = [](const Typed &weight) { return weight.data == nullptr || packs_row(weight, kNumbers); };
  return p.append.tokens <= kFewAppended && p.append.cache.desc.head_dim <= kMostHeadDim && p.pairs % kNumbers == 0 && packs(p.q, kNumbers) &&
         packs(p.k, kNumbers) && packs(p.q_table, kNumbers) && packs(p.k_table, kNumbers) && fits_norm(p.q_norm) && fits_norm(p.k_norm);
}

}  // namespace

void append_rotated(Backend &backend, const AppendRotatedParams &params) {
  if (!fits(params)) return append_rotated_parts(backend, params);
  const bool at_rest = note_written(backend, params.append.cache, params.append.layer);
  const ps_cache_desc &desc = params.append.cache.desc;
  const dim3 grid(static_cast<unsigned>(params.append.tokens), static_cast<unsigned>(desc.num_kv_heads + ceil_div(desc.num_query_heads, kWarps)));
  const bool grouped = params.append.cache.group_mean, wide = desc.head_dim > kPackWidth;
  with_cache_types(desc, [&](auto type, auto kv) {
    using T = decltype(type);
    using Kv = decltype(kv);
    constexpr int kWide = kMostHeadDim / kPackWidth;
    if constexpr (!kIsScaled<Kv>) {
      if (at_rest && is_one_token(params)) {
        auto *token_kernel = grouped ? wide ? rotated_token_kernel<T, Kv, true, kWide> : rotated_token_kernel<T, Kv, true, 1>
                             : wide  ? rotated_token_kernel<T, Kv, false, kWide>
                                     : rotated_token_kernel<T, Kv, false, 1>;
        return launch(backend, "Could not launch append_rotated", token_kernel, grid, dim3(kStatisticsThreads), 0, params, backend.bad_index);
      }
    }
    auto *kernel = grouped ? wide ? rotated_kernel<T, Kv, true, kWide> : rotated_kernel<T, Kv, true, 1>
                   : wide  ? rotated_kernel<T, Kv, false, kWide>
                           : rotated_kernel<T, Kv, false, 1>;
    launch(backend, "Could not launch append_rotated", kernel, grid, dim3(kStatisticsThreads), 0, params, backend.bad_index);
  });
}

}  // namespace ps
