/* Stores keys and values in their pages and renews the statistics of every page touched, from the keys as stored
 * (tests/reference/page_statistics.ts).
 *
 * The block of the last token of a page in the call does all the work on that page and head, so no two blocks meet. It reads
 * up to S tokens of 8 d bytes and writes as much in the page's dtype, and one row of statistics. */
#include <cuda_fp8.h>

#include "page_group.cuh"
#include "page_group.h"

namespace ps {
namespace {

constexpr int kMaxPageSize = 64, kMaxGroupPages = 8;
constexpr int64_t kFewTokens = 256; /* of a decode step or a short prompt: a group's pages then lie in one block's hands */
constexpr float kLargestF8 = 448.f;

/* Where the numbers of one page and head lie. */
template <typename T>
struct PageRows {
  T *keys, *values;
  int64_t row, single; /* of the statistics */
};

template <typename T>
__device__ PageRows<T> page_rows(const CacheView &cache, int64_t layer, int64_t head, int64_t physical) {
  const Layout layout(cache.desc);
  const int64_t tokens = layout.tokens(layer, head, physical);
  return {static_cast<T *>(cache.keys) + tokens, static_cast<T *>(cache.values) + tokens, layout.vector(layer, head, physical),
          layout.page(layer, head, physical)};
}

/* Writes the page's means as 8-bit floats; mean [kNumbersAThread] are this thread's. A row that is not finite gets NaN as its scale. */
__device__ void store_f8(const CacheView &cache, int64_t row, int64_t single, const float *mean, float *shared) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kNumbersAThread; i++) largest = max_nan(largest, fabsf(mean[i]));
  largest = warp_max_nan(largest);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = largest;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kStatisticsThreads / kWarp; warp++) largest = max_nan(largest, shared[warp]);
  const float scale = largest / kLargestF8, factor = scale > 0 ? 1.f / scale : 0.f;
  auto *out = static_cast<__nv_fp8_storage_t *>(cache.mean) + row;
#pragma unroll
  for (int i = 0; i < kNumbersAThread; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim < cache.desc.head_dim) out[dim] = __nv_cvt_float_to_fp8(mean[i] * factor, __NV_SATFINITE, __NV_E4M3);
  }
  if (threadIdx.x == 0) cache.mean_scale[single] = isfinite(scale) ? scale : NAN;
}

/* Statistics of one dimension of a page's first `count` keys. */
struct Moments {
  float mean, variance, low, high;
};

template <typename T>
__device__ Moments measure(const CacheView &cache, const T *keys, int dim, int count) {
  const Layout layout(cache.desc);
  auto key = [&](int place) { return to_float(keys[layout.inside(sizeof(T), place, dim)]); };
  const float first = key(0), origin = isfinite(first) ? first : 0; /* equal keys have exactly themselves as mean, so that their pages tie */
  float sum = 0, squares = 0, low = first, high = first;
#pragma unroll 8
  for (int place = 0; place < count; place++) sum += key(place) - origin;
  const float mean = origin + sum / static_cast<float>(count);
#pragma unroll 8
  for (int place = 0; place < count; place++) {
    const float value = key(place), distance = value - mean;
    squares += distance * distance;
    low = value < low || value != value ? value : low; /* NaN stays, as in the mean */
    high = value > high || value != value ? value : high;
  }
  return {mean, squares / static_cast<float>(count), low, high};
}

/* Statistics of the first `count` keys of a page; every thread has written, or can see, the keys of its dimensions. */
template <typename T>
__device__ void renew_statistics(const CacheView &cache, const PageRows<T> &page, int count, float *shared) {
  float total = 0, mean[kNumbersAThread] = {};
#pragma unroll
  for (int i = 0; i < kNumbersAThread; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim >= cache.desc.head_dim) continue;
    const Moments moments = measure(cache, page.keys, dim, count);
    total += moments.variance;
    mean[i] = moments.mean;
    if (!cache.mean_scale) store_number(static_cast<T *>(cache.mean) + page.row + dim, moments.mean);
    if (cache.variance) store_number(static_cast<T *>(cache.variance) + page.row + dim, moments.variance);
    if (cache.min) store_number(static_cast<T *>(cache.min) + page.row + dim, moments.low);
    if (cache.max) store_number(static_cast<T *>(cache.max) + page.row + dim, moments.high);
  }
  total = block_sum(total, shared);
  if (threadIdx.x == 0) cache.std[page.single] = sqrtf(total);
  __syncthreads();
  if (cache.mean_scale) store_f8(cache, page.row, page.single, mean, shared);
}

/* Tokens of the page that the call writes, `source` [S] says from where; returns one past the last place. */
__device__ __forceinline__ int last_place(const int32_t *source, int page_size) {
  int count = page_size;
  while (count > 0 && source[count - 1] < 0) count--;
  return count;
}

template <typename T>
__device__ __forceinline__ void store_tokens(const AppendKvParams &p, int64_t head, const PageRows<T> &page, const int32_t *source, int count) {
  const Layout layout(p.cache.desc);
  for (int dim = threadIdx.x; dim < p.cache.desc.head_dim; dim += kStatisticsThreads) {
    for (int place = 0; place < count; place++) {
      if (source[place] < 0) continue;
      const int64_t at = layout.inside(sizeof(T), place, dim), from = head * p.cache.desc.head_dim + dim;
      store_number(page.keys + at, p.k.row(source[place])[from]);
      store_number(page.values + at, p.v.row(source[place])[from]);
    }
  }
}

/* Grouped: a block takes all pages of a group that the call touches, and the group's own statistics. */
template <typename T, bool Grouped>
__global__ void __launch_bounds__(kStatisticsThreads) append_kernel(const __grid_constant__ AppendKvParams p, BadIndex *bad_index) {
  __shared__ int32_t source[kMaxPageSize * (Grouped ? kMaxGroupPages : 1)]; /* token of the call that fills a place, or -1 */
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
  for (int i = threadIdx.x; i < unit_tokens; i += kStatisticsThreads) source[i] = -1;
  __syncthreads();
  const int32_t unit = slot / unit_tokens;
  for (int64_t i = threadIdx.x; i <= token; i += kStatisticsThreads) {
    const int32_t other = p.slots[i];
    if (other >= 0 && other < limit && other / unit_tokens == unit) source[other % unit_tokens] = static_cast<int32_t>(i);
  }
  __syncthreads();
  for (int i = 0; i < unit_pages; i++) {
    const int32_t *of_page = source + i * desc.page_size;
    const int count = last_place(of_page, desc.page_size);
    if (count == 0) continue;
    const PageRows<T> page = page_rows<T>(p.cache, p.layer, head, unit * unit_pages + i);
    store_tokens(p, head, page, of_page, count);
    renew_statistics(p.cache, page, count, shared);
  }
  if (!Grouped) return;
  __syncthreads();
  renew_group<T>(p.cache, p.layer, head, slot / desc.page_size, slot % desc.page_size + 1, shared);
}

template <typename T>
__global__ void __launch_bounds__(kStatisticsThreads) statistics_kernel(const __grid_constant__ PageStatisticsParams p) {
  __shared__ float shared[kWarp];
  let_next_start();
  wait_for_previous();
  renew_statistics(p.cache, page_rows<T>(p.cache, blockIdx.x, blockIdx.y, p.page), p.num_tokens, shared);
}

}  // namespace

void append_kv(Backend &backend, const AppendKvParams &params) {
  const dim3 grid(static_cast<unsigned>(params.tokens), static_cast<unsigned>(params.cache.desc.num_kv_heads));
  const bool grouped = params.cache.group_mean && params.tokens <= kFewTokens;
  with_dtype(params.cache.desc.dtype, [&](auto type) {
    using T = decltype(type);
    launch(backend, "Could not launch append_kv", grouped ? append_kernel<T, true> : append_kernel<T, false>, grid, dim3(kStatisticsThreads), 0, params,
           backend.bad_index);
  });
  if (params.cache.group_mean && !grouped) renew_groups(backend, params.cache, params.layer, params.slots, params.tokens);
}

void page_statistics(Backend &backend, const PageStatisticsParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  const dim3 grid(static_cast<unsigned>(desc.num_layers), static_cast<unsigned>(desc.num_kv_heads));
  with_dtype(desc.dtype, [&](auto type) {
    launch(backend, "Could not launch page_statistics", statistics_kernel<decltype(type)>, grid, dim3(kStatisticsThreads), 0, params);
  });
  if (params.cache.group_mean) renew_group_of(backend, params.cache, params.page, params.num_tokens);
}

}  // namespace ps
