/* What the kernels share that store keys: where a token goes, and the statistics of a page (tests/reference/page_statistics.ts). */
#pragma once

#include "../../coarse_statistics.h"
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

/* The largest number of the block, NaN if there is one, in every thread; none is below 0. shared [kWarp]. */
__device__ inline float block_max_nan(float value, float *shared) {
  value = warp_max_nan(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kStatisticsThreads / kWarp; warp++) value = max_nan(value, shared[warp]);
  return value;
}

/* Writes the page's means as 8-bit floats; mean are this thread's. A row that is not finite gets NaN as its scale. */
template <int Dims>
__device__ void store_f8(const CacheView &cache, int64_t row, int64_t single, const float (&mean)[Dims], float *shared) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < Dims; i++) largest = max_nan(largest, fabsf(mean[i]));
  largest = block_max_nan(largest, shared);
  const float scale = largest / kLargestF8, factor = scale > 0 ? 1.f / scale : 0.f;
  auto *out = static_cast<__nv_fp8_storage_t *>(cache.mean) + row;
#pragma unroll
  for (int i = 0; i < Dims; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim < cache.desc.head_dim) out[dim] = __nv_cvt_float_to_fp8(mean[i] * factor, __NV_SATFINITE, __NV_E4M3);
  }
  if (threadIdx.x == 0) cache.mean_scale[single] = isfinite(scale) ? scale : NAN;
}

/* A bf16 scale as f32; NaN where it is not finite, so that the page is always scored exactly. */
__device__ __forceinline__ float coarse_scale(float scale) {
  const float rounded = to_float(__float2bfloat16_rn(scale));
  return isfinite(rounded) ? rounded : NAN;
}

/* Writes the page's coarse row; mean and variance are this thread's, as stored. */
template <int Dims>
__device__ void store_coarse(const CacheView &cache, int64_t single, const float (&mean)[Dims], const float (&variance)[Dims], float *shared) {
  __shared__ uint8_t codes[Dims * kStatisticsThreads];
  const int d = cache.desc.head_dim;
  float largest[2] = {};
#pragma unroll
  for (int i = 0; i < Dims; i++) {
    largest[0] = max_nan(largest[0], fabsf(mean[i]));
    largest[1] = max_nan(largest[1], variance[i]);
  }
  const float mean_scale = coarse_scale(__fdiv_rn(block_max_nan(largest[0], shared), 127.f));
  const float variance_scale = coarse_scale(block_max_nan(largest[1], shared));
  uint8_t *row = cache.coarse + single * coarse_row_bytes(d, cache.variance != nullptr);
#pragma unroll
  for (int i = 0; i < Dims; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim >= d) continue;
    const float number = mean_scale > 0 ? __fdiv_rn(mean[i], mean_scale) : 0.f;
    const float share = variance_scale > 0 ? __fdiv_rn(variance[i], variance_scale) : 0.f;
    row[dim] = static_cast<uint8_t>(max(-127, min(127, __float2int_rn(number))));
    codes[dim] = static_cast<uint8_t>(variance_code(share));
  }
  if (threadIdx.x == 0) {
    const auto bits = [](float scale) { return __float_as_uint(scale) >> 16; };
    cache.coarse_scale[single] = bits(variance_scale) << 16 | bits(mean_scale);
  }
  if (cache.variance == nullptr) return;
  __syncthreads();
  const int t = threadIdx.x % 4, part = threadIdx.x / 4;
  if (part >= coarse_word_bytes(d) / 2) return;
  uint32_t packed = 0;
  for (int n = 8 * part; n < 8 * part + 8 && n < d / 4; n++) {
    packed |= uint32_t(codes[coarse_dim(d, t, n)]) << (4 * (n % 4) + 2 * (n / 4 % 2));
  }
  reinterpret_cast<uint16_t *>(row + d + t * coarse_word_bytes(d))[part] = static_cast<uint16_t>(packed);
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

/* The same of keys that are at hand; count is 1 to kAtOnce. */
__device__ __forceinline__ Moments moments_of(const float (&keys)[kAtOnce], int count) {
  const float origin = isfinite(keys[0]) ? keys[0] : 0;
  float sum = 0, squares = 0, low = keys[0], high = keys[0];
#pragma unroll
  for (int i = 0; i < kAtOnce; i++) sum += i < count ? keys[i] - origin : 0.f;
  const float mean = origin + sum / static_cast<float>(count);
#pragma unroll
  for (int i = 0; i < kAtOnce; i++) {
    if (i >= count) continue;
    const float distance = keys[i] - mean;
    squares += distance * distance;
    low = keys[i] < low || keys[i] != keys[i] ? keys[i] : low; /* NaN stays, as in the mean */
    high = keys[i] > high || keys[i] != keys[i] ? keys[i] : high;
  }
  return {mean, squares / static_cast<float>(count), low, high};
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

/* Writes a number of a row of statistics; returns it as stored. */
template <typename T>
__device__ __forceinline__ float store_statistic(void *pool, int64_t at, float number) {
  T *out = static_cast<T *>(pool) + at;
  store_number(out, number);
  return to_float(*out);
}

/* Stores the statistics of a page, from the moments of every dimension, and returns its spread. mean become this thread's means as stored,
 * of Dims dimensions: no head has more than that for every thread. T: of statistics. */
template <typename T, typename Kv, typename MomentsOf, int Dims>
__device__ float store_statistics(const CacheView &cache, const PageRows<Kv> &page, const MomentsOf &moments_of_dim, float (&mean)[Dims],
                                  float *shared) {
  float total = 0, variance[Dims] = {};
#pragma unroll
  for (int i = 0; i < Dims; i++) {
    const int dim = threadIdx.x + i * kStatisticsThreads;
    if (dim >= cache.desc.head_dim) continue;
    const Moments moments = moments_of_dim(i, dim);
    total += moments.variance;
    mean[i] = cache.mean_scale ? moments.mean : store_statistic<T>(cache.mean, page.row + dim, moments.mean);
    if (cache.variance) variance[i] = store_statistic<T>(cache.variance, page.row + dim, moments.variance);
    if (cache.min) store_statistic<T>(cache.min, page.row + dim, moments.low);
    if (cache.max) store_statistic<T>(cache.max, page.row + dim, moments.high);
  }
  const float std = sqrtf(block_sum(total, shared));
  if (threadIdx.x == 0) cache.std[page.single] = std;
  __syncthreads();
  if (cache.mean_scale) store_f8(cache, page.row, page.single, mean, shared);
  if (cache.coarse) store_coarse(cache, page.single, mean, variance, shared);
  return std;
}

/* Statistics of the first `count` keys of a page; every thread has written, or can see, the keys of its dimensions. */
template <typename T, int Dims = kNumbersAThread, typename Kv>
__device__ void renew_statistics(const CacheView &cache, const PageRows<Kv> &page, int count, float *shared) {
  float mean[Dims] = {};
  store_statistics<T>(cache, page, [&](int, int dim) { return measure(cache, page, dim, count); }, mean, shared);
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
