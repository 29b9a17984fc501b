/* The share of every page in the exact softmax of a query: the logarithm of the sum of e^score over the tokens of each page, then e^(that
 * of a page - that of all). Reads every key once for up to four query heads of a group, so it is bound by their bytes. */
#pragma once

#include "decode_attention.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kMassPagesPerTask = 64;

/* The logarithm of the sum of e^score over places [begin, end) of a page. */
PS_INLINE float log_sum(const float *scores, int64_t begin, int64_t end, float scale) {
  float maximum = -__builtin_inff();
  for (int64_t i = begin; i < end; i++) maximum = scores[i] * scale > maximum || scores[i] != scores[i] ? scores[i] * scale : maximum;
  const float limit = maximum == -__builtin_inff() ? 0.f : maximum;
  float sum = 0;
  for (int64_t i = begin; i < end; i++) sum += __builtin_expf(scores[i] * scale - limit);
  return limit + __builtin_logf(sum);
}

template <typename T, int Heads>
static void sum_block(const Block &block, const PageMassParams &p, const float *q, float *scores, float *const *out) {
  const int64_t page_size = p.cache.desc.page_size;
  score_keys<T, Heads>(block, page_size, p.cache.desc.head_dim, q, scores);
  for (int h = 0; h < Heads; h++) {
    if constexpr (kIsScaled<T>) multiply_scales(block, block.key_scales, page_size, scores + h * 2 * kBlockTokens);
    for (int64_t page = 0; page < block.pages; page++) {
      out[h][page] = log_sum(scores + h * 2 * kBlockTokens + page * page_size, block.begin[page], block.end[page], p.scale);
    }
  }
}

/* Pages [first, end) of one sequence and KV head. */
template <typename T>
static void sum_range(const PageMassParams &p, const DecodeAttentionParams &attend, const PageList &list, int64_t row, int64_t first, int64_t end,
                      float *memory) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t d = desc.head_dim, group = desc.num_query_heads / desc.num_kv_heads, sequence = row / desc.num_kv_heads,
                head = row % desc.num_kv_heads;
  float *scores = memory, *q = memory + kScoreFloats;
  arrange_queries(p.q.row(sequence) + head * group * d, group, d, q);
  for (int64_t i = first; i < end;) {
    const Block block = gather_block<T>(attend, list, head, i, end);
    for (int64_t h = 0; h < group; h += kHeadsAtOnce) {
      float *out[kHeadsAtOnce];
      const int64_t heads = group - h < kHeadsAtOnce ? group - h : kHeadsAtOnce;
      for (int64_t j = 0; j < heads; j++) {
        out[j] = p.mass + (sequence * desc.num_query_heads + head * group + h + j) * p.sequences.max_pages + list.first_page + i;
      }
      const float *query = q + h * d;
      if (heads == 4) sum_block<T, 4>(block, p, query, scores, out);
      else if (heads == 3) sum_block<T, 3>(block, p, query, scores, out);
      else if (heads == 2) sum_block<T, 2>(block, p, query, scores, out);
      else sum_block<T, 1>(block, p, query, scores, out);
    }
    i += block.pages;
  }
}

/* Turns the logarithms of a row's pages into shares; pages before the window have none. */
static void share_row(float *row, int64_t first, int64_t pages) {
  float maximum = -__builtin_inff();
  for (int64_t i = first; i < pages; i++) maximum = row[i] > maximum || row[i] != row[i] ? row[i] : maximum;
  float total = 0;
  for (int64_t i = first; i < pages; i++) total += __builtin_expf(row[i] - maximum);
  for (int64_t i = 0; i < pages; i++) row[i] = i < first ? 0.f : __builtin_expf(row[i] - maximum) / total;
}

static void page_mass(ThreadPool &pool, const PageMassParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, group = desc.num_query_heads / heads, rows = p.sequences.sequences * heads;
  const DecodeAttentionParams attend{p.cache, p.sequences, p.q, nullptr, nullptr, {}, 0, p.layer, p.window, p.scale};
  int64_t most = 0;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t count = list_pages(attend, row / heads, row % heads).count;
    most = count > most ? count : most;
  }
  const int64_t tasks = (most + kMassPagesPerTask - 1) / kMassPagesPerTask;
  pool.reserve_scratch((kScoreFloats + group * desc.head_dim) * int64_t(sizeof(float)));
  with_kv_type(desc, [&](auto type) {
    pool.parallel_for(rows * tasks, [&](int64_t task, int thread) {
      const int64_t row = task / tasks, first = task % tasks * kMassPagesPerTask;
      const PageList list = list_pages(attend, row / heads, row % heads);
      const int64_t end = first + kMassPagesPerTask < list.count ? first + kMassPagesPerTask : list.count;
      sum_range<decltype(type)>(p, attend, list, row, first, end, static_cast<float *>(pool.scratch(thread)));
    });
  });
  pool.parallel_for(p.sequences.sequences * desc.num_query_heads, [&](int64_t row, int) {
    const PageList list = list_pages(attend, row / desc.num_query_heads, 0);
    share_row(p.mass + row * p.sequences.max_pages, list.first_page, list.first_page + list.count);
  });
}

}  // namespace PS_ISA
}  // namespace ps
