/* The score of every page for one query per sequence: the largest over the query heads of the KV head's group.
 *
 *   unique  q.mean + lambda |q| std                 diag  q.mean + lambda sqrt(sum_d q_d^2 var_d)
 *   quest   sum_d max(q_d min_d, q_d max_d)         mean  q.mean
 *
 * Reads one row of d statistics per page (two for diag and quest), so it is bound by P * d * sizeof(T) bytes per head. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

constexpr int kQueriesAtOnce = 4;
constexpr int64_t kPagesPerTask = 512;

/* One KV head's view: one row of d numbers per physical page. */
template <typename T>
struct StatisticRows {
  const T *mean, *variance, *min, *max;
  const float *std;
};

/* raw[i] = the score's parts for query i: first = q.mean (or quest's sum), second = sum q^2 var (diag only). */
template <typename T, int Queries, int Pages>
PS_INLINE void dot_pages(const float *const *q, const T *const *rows, int64_t d, float out[Queries][Pages]) {
  Vec sum[Queries][Pages];
  PS_UNROLL
  for (int h = 0; h < Queries; h++) {
    PS_UNROLL
    for (int p = 0; p < Pages; p++) sum[h][p] = Vec{};
  }
  for (int64_t i = 0; i < d; i += kLanes) {
    Vec x[Pages];
    PS_UNROLL
    for (int p = 0; p < Pages; p++) x[p] = load(rows[p] + i);
    PS_UNROLL
    for (int h = 0; h < Queries; h++) {
      const Vec query = load(q[h] + i);
      PS_UNROLL
      for (int p = 0; p < Pages; p++) sum[h][p] = fma(query, x[p], sum[h][p]);
    }
  }
  PS_UNROLL
  for (int h = 0; h < Queries; h++) {
    PS_UNROLL
    for (int p = 0; p < Pages; p++) out[h][p] = reduce_add(sum[h][p]);
  }
}

/* Per query head: the query itself, its squares or its two signed halves, and lambda |q|. */
struct QueryForms {
  const float *first, *second;
  float spread;
};

template <typename T, int Queries, int Pages>
PS_INLINE void score_block(ps_scorer scorer, float lambda, const StatisticRows<T> &rows, const QueryForms *queries, const int32_t *physical,
                           int64_t d, float *best) {
  const float *first[Queries], *second[Queries];
  const T *a[Pages], *b[Pages];
  PS_UNROLL
  for (int h = 0; h < Queries; h++) first[h] = queries[h].first, second[h] = queries[h].second;
  /* Statistics that the cache does not store are null, and a null pointer must not be offset. */
  const T *stored = scorer == PS_QUEST ? rows.min : scorer == PS_DIAG ? rows.variance : rows.mean;
  PS_UNROLL
  for (int p = 0; p < Pages; p++) {
    a[p] = (scorer == PS_QUEST ? rows.max : rows.mean) + physical[p] * d;
    b[p] = stored + physical[p] * d;
  }
  float main[Queries][Pages], other[Queries][Pages];
  dot_pages<T, Queries, Pages>(first, a, d, main);
  if (scorer == PS_DIAG || scorer == PS_QUEST) dot_pages<T, Queries, Pages>(second, b, d, other);
  PS_UNROLL
  for (int p = 0; p < Pages; p++) {
    PS_UNROLL
    for (int h = 0; h < Queries; h++) {
      float score = main[h][p];
      if (scorer == PS_UNIQUE) score += queries[h].spread * rows.std[physical[p]];
      else if (scorer == PS_DIAG) score += lambda * __builtin_sqrtf(other[h][p]);
      else if (scorer == PS_QUEST) score += other[h][p];
      /* propagates NaN, so that another head does not hide it */
      best[p] = score > best[p] || score != score ? score : best[p];
    }
  }
}

template <typename T, int Queries>
static void score_queries(const PageScoreParams &p, const StatisticRows<T> &rows, const QueryForms *queries, const int32_t *table, int64_t first,
                          int64_t end, float *scores) {
  const int64_t d = p.cache.desc.head_dim;
  int64_t page = first;
  for (; page + 2 <= end; page += 2) {
    score_block<T, Queries, 2>(p.scorer, p.lambda, rows, queries, table + page, d, scores + page);
  }
  for (; page < end; page++) score_block<T, Queries, 1>(p.scorer, p.lambda, rows, queries, table + page, d, scores + page);
}

/* Writes the factors that the scorer multiplies with the statistics; `memory` has 2 d floats. */
static QueryForms prepare_query(const PageScoreParams &p, const float *q, float *memory) {
  const int64_t d = p.cache.desc.head_dim;
  float squares = 0;
  for (int64_t i = 0; i < d; i++) {
    squares += q[i] * q[i];
    const float positive = q[i] > 0 ? q[i] : 0, negative = q[i] - positive; /* NaN ends up in the negative half */
    memory[i] = p.scorer == PS_QUEST ? positive : q[i];
    memory[d + i] = p.scorer == PS_QUEST ? negative : q[i] * q[i];
  }
  return {memory, memory + d, p.lambda * __builtin_sqrtf(squares)};
}

template <typename T>
static void score_range(const PageScoreParams &p, int64_t sequence, int64_t head, int64_t first, int64_t end, float *memory) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t group = desc.num_query_heads / desc.num_kv_heads, d = desc.head_dim, base = Layout(desc).vector(p.layer, head, 0);
  auto rows_of = [base](const void *pool) { return pool ? static_cast<const T *>(pool) + base : nullptr; };
  const StatisticRows<T> rows{rows_of(p.cache.mean), rows_of(p.cache.variance), rows_of(p.cache.min), rows_of(p.cache.max),
                              p.cache.std + Layout(desc).page(p.layer, head, 0)};
  const int32_t *table = p.sequences.page_table + sequence * p.sequences.table_stride;
  float *scores = p.scores + (sequence * desc.num_kv_heads + head) * p.sequences.max_pages;
  for (int64_t page = first; page < end; page++) scores[page] = -__builtin_inff();
  QueryForms queries[kQueriesAtOnce];
  for (int64_t h = 0; h < group; h += kQueriesAtOnce) {
    const int64_t count = group - h < kQueriesAtOnce ? group - h : kQueriesAtOnce;
    for (int64_t i = 0; i < count; i++) {
      queries[i] = prepare_query(p, p.q.row(sequence) + (head * group + h + i) * d, memory + i * 2 * d);
    }
    if (count == 4) score_queries<T, 4>(p, rows, queries, table, first, end, scores);
    else if (count == 3) score_queries<T, 3>(p, rows, queries, table, first, end, scores);
    else if (count == 2) score_queries<T, 2>(p, rows, queries, table, first, end, scores);
    else score_queries<T, 1>(p, rows, queries, table, first, end, scores);
  }
}

static void page_score(ThreadPool &pool, const PageScoreParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t chunks = (p.sequences.max_pages + kPagesPerTask - 1) / kPagesPerTask;
  for (int64_t b = 0; b < p.sequences.sequences; b++) {
    p.cache.counters->pages_scored += (p.sequences.lengths[b] + desc.page_size - 1) / desc.page_size * desc.num_kv_heads;
  }
  pool.reserve_scratch(kQueriesAtOnce * 2 * desc.head_dim * int64_t(sizeof(float)));
  with_dtype(desc.dtype, [&](auto type) {
    pool.parallel_for(p.sequences.sequences * desc.num_kv_heads * chunks, [&](int64_t task, int thread) {
      const int64_t chunk = task % chunks, head = task / chunks % desc.num_kv_heads, sequence = task / chunks / desc.num_kv_heads;
      const int64_t pages = (p.sequences.lengths[sequence] + desc.page_size - 1) / desc.page_size;
      const int64_t first = chunk * kPagesPerTask, end = first + kPagesPerTask < pages ? first + kPagesPerTask : pages;
      if (first < end) score_range<decltype(type)>(p, sequence, head, first, end, static_cast<float *>(pool.scratch(thread)));
    });
  });
}

}  // namespace PS_ISA
}  // namespace ps
