/* Stores keys and values in their pages and recomputes the statistics of every page that it writes, from the keys as stored
 * (tests/reference/page_statistics.ts). */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kMaxPageSize = 64;

/* Calls body with values of the C++ types that store statistics, and keys and values. */
template <typename Body>
static void with_cache_types(const ps_cache_desc &desc, const Body &body) {
  with_dtype(desc.dtype, [&](auto type) {
    if (desc.kv_type == PS_KV_Q8) body(type, q8{});
    else if (desc.kv_type == PS_KV_FP8) body(type, fp8{});
    else body(type, type);
  });
}

/* Statistics of the first `count` keys of page `physical`: mean, spread and the other statistics that the cache stores. T: of statistics;
 * Kv: of keys. */
template <typename T, typename Kv>
static void renew_statistics(const CacheView &cache, int64_t layer, int64_t head, int64_t physical, int64_t count) {
  const Layout layout(cache.desc);
  const Kv *keys = static_cast<const Kv *>(cache.keys) + layout.tokens(layer, head, physical);
  const float *scales = cache.key_scale + (kIsScaled<Kv> ? layout.token(layer, head, physical) : 0);
  const int64_t row = layout.vector(layer, head, physical);
  float total = 0;
  for (int64_t dim = 0; dim < layout.head_dim; dim++) {
    const Kv *numbers = keys + layout.key(0, dim);
    float x[kMaxPageSize];
    for (int64_t i = 0; i < count; i++) {
      if constexpr (kIsScaled<Kv>) x[i] = to_float(numbers[i]) * scales[i];
      else x[i] = to_float(numbers[i]);
    }
    float sum = 0, low = x[0], high = low;
    const float origin = low - low == 0 ? low : 0; /* the mean of equal keys is exactly that key, so that their pages tie */
    for (int64_t i = 0; i < count; i++) sum += x[i] - origin;
    const float mean = origin + sum / static_cast<float>(count);
    float squares = 0;
    for (int64_t i = 0; i < count; i++) {
      const float value = x[i], distance = value - mean;
      squares += distance * distance;
      low = value < low || value != value ? value : low; /* propagates NaN, as the mean does */
      high = value > high || value != value ? value : high;
    }
    const float variance = squares / static_cast<float>(count);
    total += variance;
    store_number(static_cast<T *>(cache.mean) + row + dim, mean);
    if (cache.variance) store_number(static_cast<T *>(cache.variance) + row + dim, variance);
    if (cache.min) store_number(static_cast<T *>(cache.min) + row + dim, low);
    if (cache.max) store_number(static_cast<T *>(cache.max) + row + dim, high);
  }
  cache.std[layout.page(layer, head, physical)] = __builtin_sqrtf(total);
}

/* Stores a token's d numbers at out[i * step]. In 8 bits, they share *scale. */
template <typename Kv>
static void store_row(const float *x, int64_t d, Kv *out, int64_t step, float *scale) {
  float divisor = 1;
  bool finite = true;
  if constexpr (kIsScaled<Kv>) {
    float largest = 0;
    for (int64_t i = 0; i < d; i++) {
      const float magnitude = __builtin_fabsf(x[i]);
      largest = magnitude > largest || magnitude != magnitude ? magnitude : largest; /* NaN stays */
    }
    *scale = row_scale<Kv>(largest);
    finite = *scale == *scale;
    divisor = *scale > 0 ? *scale : 1;
  }
  for (int64_t i = 0; i < d; i++) store_number(out + i * step, finite ? x[i] / divisor : 0.f);
}

template <typename Kv>
static void store_token(const CacheView &cache, int64_t layer, int64_t head, int64_t slot, const float *k, const float *v) {
  const Layout layout(cache.desc);
  const int64_t physical = slot / layout.page_size, place = slot % layout.page_size, base = layout.tokens(layer, head, physical);
  const int64_t scale = kIsScaled<Kv> ? layout.token(layer, head, physical) + place : 0;
  store_row(k, layout.head_dim, static_cast<Kv *>(cache.keys) + base + layout.key(place, 0), layout.key(0, 1), cache.key_scale + scale);
  store_row(v, layout.head_dim, static_cast<Kv *>(cache.values) + base + layout.value(place, 0), 1, cache.value_scale + scale);
}

/* Stores tokens [first, end) of one head, and recomputes a page's statistics after its last token of this call. */
template <typename T, typename Kv>
static void append_range(const AppendKvParams &p, int64_t head, int64_t first, int64_t end) {
  const int64_t d = p.cache.desc.head_dim, page_size = p.cache.desc.page_size;
  for (int64_t t = first; t < end; t++) {
    const int64_t slot = p.slots[t], page = slot / page_size;
    store_token<Kv>(p.cache, p.layer, head, slot, p.k.row(t) + head * d, p.v.row(t) + head * d);
    const bool last = t + 1 == p.tokens || p.slots[t + 1] / page_size != page;
    if (last) renew_statistics<T, Kv>(p.cache, p.layer, head, page, slot % page_size + 1);
  }
}

/* The first token at or after t that starts the run of a page, so that one thread writes a whole page. */
static int64_t next_run(const AppendKvParams &p, int64_t t) {
  while (t > 0 && t < p.tokens && p.slots[t] / p.cache.desc.page_size == p.slots[t - 1] / p.cache.desc.page_size) t++;
  return t;
}

/* Whether a page may have several runs in this call: only then does a run other than the first start inside a page. */
static bool may_return_to_page(const AppendKvParams &p) {
  const int64_t page_size = p.cache.desc.page_size;
  for (int64_t t = 1; t < p.tokens; t++) {
    if (p.slots[t] % page_size != 0 && p.slots[t] / page_size != p.slots[t - 1] / page_size) return true;
  }
  return false;
}

static void append_kv(ThreadPool &pool, const AppendKvParams &p) {
  const int64_t heads = p.cache.desc.num_kv_heads, grain = rows_per_task(p.cache.desc.head_dim * 4);
  with_cache_types(p.cache.desc, [&](auto type, auto kv) {
    using T = decltype(type);
    using Kv = decltype(kv);
    const int64_t ranges = (p.tokens + grain - 1) / grain;
    if (ranges == 1) { /* too little work to wake a thread */
      for (int64_t head = 0; head < heads; head++) append_range<T, Kv>(p, head, 0, p.tokens);
      return;
    }
    if (may_return_to_page(p)) { /* the runs of a page in order, on one thread */
      pool.parallel_for(heads, [&](int64_t head, int) { append_range<T, Kv>(p, head, 0, p.tokens); });
      return;
    }
    pool.parallel_for(ranges * heads, [&](int64_t task, int) {
      const int64_t first = task / heads * grain, end = first + grain < p.tokens ? first + grain : p.tokens;
      append_range<T, Kv>(p, task % heads, next_run(p, first), next_run(p, end));
    });
  });
}

static void page_statistics(ThreadPool &pool, const PageStatisticsParams &p) {
  with_cache_types(p.cache.desc, [&](auto type, auto kv) {
    pool.parallel_for(int64_t(p.cache.desc.num_layers) * p.cache.desc.num_kv_heads, [&](int64_t row, int) {
      const int64_t heads = p.cache.desc.num_kv_heads;
      renew_statistics<decltype(type), decltype(kv)>(p.cache, row / heads, row % heads, p.page, p.num_tokens);
    });
  });
}

}  // namespace PS_ISA
}  // namespace ps
