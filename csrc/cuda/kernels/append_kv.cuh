/* What the kernels share that store keys: where a token goes, and the statistics of a page (tests/reference/page_statistics.ts). */
#pragma once

#include "group_statistics.cuh"

namespace ps {

constexpr int kMaxPageSize = 64;
constexpr float kLargestF8 = 448.f;

/* Where the numbers of one page and head lie. */
template <typename Kv>
struct PageRows {
  Kv *keys, *values;
  float *key_scales, *value_scales; /* of its tokens, where Kv is scaled */
  int64_t row, single;              /* of the statistics */
};

template <typename Kv>
__device__ PageRows<Kv> page_rows(const CacheView &cache, int64_t layer, int64_t head, int64_t physical) {
  const Layout layout(cache.desc);
  const int64_t tokens = layout.tokens(layer, head, physical);
  PageRows<Kv> page{static_cast<Kv *>(cache.keys) + tokens, static_cast<Kv *>(cache.values) + tokens, nullptr, nullptr,
                    layout.vector(layer, head, physical),   layout.page(layer, head, physical)};
  if constexpr (kIsScaled<Kv>) {
    page.key_scales = cache.key_scale + layout.token(layer, head, physical);
    page.value_scales = cache.value_scale + layout.token(layer, head, physical);
  }
  return page;
}

template <typename Kv>
constexpr float kLargest = sizeof(Kv) == 1 ? 127.f : 0.f;
template <>
constexpr float kLargest<fp8> = kLargestF8;

constexpr int kRowNumbers = 4; /* of a row in 8 bits, that a lane stores at once: contiguous in every layout */
constexpr int kRowTurns = 512 / (kWarp * kRowNumbers);

/* One warp stores the row of a token in 8 bits, by the rules and the arithmetic of csrc/numbers.h. */
template <typename Kv>
__device__ __forceinline__ void store_scaled_row(const Layout &layout, int place, const float *row, Kv *out, float *scales) {
  const int lane = threadIdx.x % kWarp, head_dim = static_cast<int>(layout.head_dim);
  float x[kRowTurns][kRowNumbers], largest = 0;
#pragma unroll
  for (int turn = 0; turn < kRowTurns; turn++) {
    const int dim = (turn * kWarp + lane) * kRowNumbers;
#pragma unroll
    for (int i = 0; i < kRowNumbers; i++) {
      x[turn][i] = dim < head_dim ? row[dim + i] : 0.f;
      largest = max_nan(largest, fabsf(x[turn][i]));
    }
  }
  largest = warp_max_nan(largest);
  const bool finite = isfinite(largest);
  const float scale = !finite ? NAN : largest < 0x1p-100f ? 0.f : __fdiv_rn(largest, kLargest<Kv>), divisor = scale > 0 ? scale : 1.f;
  if (lane == 0) scales[place] = scale;
#pragma unroll
  for (int turn = 0; turn < kRowTurns; turn++) {
    const int dim = (turn * kWarp + lane) * kRowNumbers;
    if (dim >= head_dim) continue;
    alignas(kRowNumbers) Kv numbers[kRowNumbers];
#pragma unroll
    for (int i = 0; i < kRowNumbers; i++) store_number(numbers + i, finite ? __fdiv_rn(x[turn][i], divisor) : 0.f);
    *reinterpret_cast<uint32_t *>(out + layout.inside(sizeof(Kv), place, dim)) = *reinterpret_cast<const uint32_t *>(numbers);
  }
}

/* Writes the page's means as 8-bit floats; mean [kNumbersAThread] are this thread's. A row that is not finite gets NaN as its scale. */
__device__ inline void store_f8(const CacheView &cache, int64_t row, int64_t single, const float *mean, float *shared) {
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

constexpr int kAtOnce = 8; /* keys that a thread asks for before it uses the first */

/* Calls body with key(0) to key(count - 1), in order. */
template <typename Key, typename Body>
__device__ __forceinline__ void for_keys(int count, const Key &key, const Body &body) {
  for (int first = 0; first < count; first += kAtOnce) {
    float held[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) held[i] = first + i < count ? key(first + i) : 0.f;
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      if (first + i < count) body(held[i]);
    }
  }
}

template <typename Kv>
__device__ Moments measure(const CacheView &cache, const PageRows<Kv> &page, int dim, int count) {
  const Layout layout(cache.desc);
  auto key = [&](int place) {
    const float number = to_float(page.keys[layout.inside(sizeof(Kv), place, dim)]);
    if constexpr (kIsScaled<Kv>) return number * page.key_scales[place];
    else return number;
  };
  const float first = key(0), origin = isfinite(first) ? first : 0; /* equal keys have exactly themselves as mean, so that their pages tie */
  float sum = 0, squares = 0, low = first, high = first;
  for_keys(count, key, [&](float value) { sum += value - origin; });
  const float mean = origin + sum / static_cast<float>(count);
  for_keys(count, key, [&](float value) {
    const float distance = value - mean;
    squares += distance * distance;
    low = value < low || value != value ? value : low; /* NaN stays, as in the mean */
    high = value > high || value != value ? value : high;
  });
  return {mean, squares / static_cast<float>(count), low, high};
}

/* Statistics of the first `count` keys of a page; every thread has written, or can see, the keys of its dimensions. T: of statistics. */
template <typename T, typename Kv>
__device__ void renew_statistics(const CacheView &cache, const PageRows<Kv> &page, int count, float *shared) {
  float total = 0, mean[kNumbersAThread] = {};
#pragma unroll
  for (int i = 0; i < kNumbersAThread; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim >= cache.desc.head_dim) continue;
    const Moments moments = measure(cache, page, dim, count);
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

/* Where the call's tokens go in a page, or in the pages of a group. */
template <int Pages>
struct Sources {
  int32_t token[Pages * kMaxPageSize]; /* of the call, that fills a place, or -1; as many places a page as it has */
  int32_t end[Pages];                  /* of each page: one past the last place that the call fills */

  /* Of unit `unit` of so many slots. No token behind `token` lies in it. All threads of the block call; ends with a barrier. */
  __device__ __forceinline__ void find(const AppendKvParams &p, int64_t last_token, int32_t unit, int32_t unit_tokens) {
    const int32_t page_size = p.cache.desc.page_size;
    const int64_t limit = p.cache.desc.num_pages * page_size;
    for (int i = threadIdx.x; i < unit_tokens; i += kStatisticsThreads) token[i] = -1;
    if (threadIdx.x < Pages) end[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i <= last_token; i += kStatisticsThreads) {
      const int32_t slot = p.slots[i], place = slot % unit_tokens;
      if (slot < 0 || slot >= limit || slot / unit_tokens != unit) continue;
      token[place] = static_cast<int32_t>(i);
      atomicMax(&end[place / page_size], place % page_size + 1);
    }
    __syncthreads();
  }
};

}  // namespace ps
