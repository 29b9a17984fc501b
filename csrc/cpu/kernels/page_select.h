/* The k best pages of each row, ascending: forced pages first, then by score, equal scores to the lower page.
 *
 * Scores become integers of the same order, and the k-th largest is found bit by bit: each of 32 passes counts how many are at
 * least as large. No branch depends on the data, so ties, infinities and long rows cost the same. NaN is lowest. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

PS_INLINE uint32_t ordered_key(float score) {
  const uint32_t bits = bits_from_float(score);
  const uint32_t flipped = bits ^ (bits & 0x80000000u ? 0xffffffffu : 0x80000000u);
  /* -0 counts as +0 */
  return score != score ? 0u : bits == 0x80000000u ? 0x80000000u : flipped;
}

static int64_t count_at_least(const uint32_t *keys, int64_t count, uint32_t limit) {
  int64_t total = 0;
  for (int64_t first = 0; first < count; first += 65536) { /* 32-bit sums, so that they fit the lanes */
    const int64_t end = first + 65536 < count ? first + 65536 : count;
    uint32_t sum = 0;
    for (int64_t i = first; i < end; i++) sum += keys[i] >= limit;
    total += sum;
  }
  return total;
}

/* The largest key that at least `wanted` of the keys reach. */
static uint32_t kth_largest(const uint32_t *keys, int64_t count, int64_t wanted) {
  uint32_t key = 0;
  for (int bit = 31; bit >= 0; bit--) {
    const uint32_t candidate = key | 1u << bit;
    if (count_at_least(keys, count, candidate) >= wanted) key = candidate;
  }
  return key;
}

/* The `wanted` best of pages [first, end), ascending, to `out`. */
static void select_best(const float *scores, int64_t first, int64_t end, int64_t wanted, uint32_t *keys, int32_t *out) {
  const int64_t count = end - first;
  for (int64_t i = 0; i < count; i++) keys[i] = ordered_key(scores[first + i]);
  const uint32_t cut = kth_largest(keys, count, wanted);
  int64_t ties = wanted - (cut == 0xffffffffu ? 0 : count_at_least(keys, count, cut + 1));
  for (int64_t i = 0; i < count; i++) {
    const bool tie = keys[i] == cut && ties > 0;
    if (keys[i] > cut || tie) *out++ = static_cast<int32_t>(first + i);
    ties -= tie;
  }
}

/* Pages that are always in: the first `first` and the last `last`; `best` more are to be found among the rest. */
struct Forced {
  int64_t first, last, best;
};

PS_INLINE Forced forced_pages(int64_t k, int64_t sink, int64_t recent) {
  const int64_t last = recent < k ? recent : k, first = sink < k - last ? sink : k - last;
  return {first, last, k - last - first};
}

/* Returns how many pages were chosen. */
static int32_t select_row(const float *scores, int64_t pages, int64_t k, int64_t sink, int64_t recent, uint32_t *keys, int32_t *out) {
  if (pages <= k) {
    for (int64_t i = 0; i < pages; i++) out[i] = static_cast<int32_t>(i);
    return static_cast<int32_t>(pages);
  }
  const auto [first, last, best] = forced_pages(k, sink, recent);
  for (int64_t i = 0; i < first; i++) out[i] = static_cast<int32_t>(i);
  if (best > 0) select_best(scores, first, pages - last, best, keys, out + first);
  for (int64_t i = 0; i < last; i++) out[k - last + i] = static_cast<int32_t>(pages - last + i);
  return static_cast<int32_t>(k);
}

static void page_select(ThreadPool &pool, const PageSelectParams &p) {
  const int64_t heads = p.cache.desc.num_kv_heads;
  pool.reserve_scratch(p.sequences.max_pages * int64_t(sizeof(uint32_t)));
  pool.parallel_for(p.sequences.sequences * heads, [&](int64_t row, int thread) {
    const int64_t pages = (p.sequences.lengths[row / heads] + p.cache.desc.page_size - 1) / p.cache.desc.page_size;
    p.counts[row] = select_row(p.scores + row * p.sequences.max_pages, pages, p.k, p.sink_pages, p.recent_pages,
                               static_cast<uint32_t *>(pool.scratch(thread)), p.selected + row * p.k);
  });
  bool any = false;
  for (int64_t row = 0; row < p.sequences.sequences * heads; row++) {
    const int64_t pages = (p.sequences.lengths[row / heads] + p.cache.desc.page_size - 1) / p.cache.desc.page_size;
    p.cache.counters->rows_selected += pages > p.k;
    any = any || pages > p.k;
  }
  p.cache.counters->selections += any;
}

}  // namespace PS_ISA
}  // namespace ps
