/* The pages before each tile of a prompt that its tokens attend to.
 *
 * A task takes a tile and a KV head. Its rows are the query heads of the group of the sampled tokens; their scores of all pages are products
 * with the statistics, 64 pages at a time, through the register tile of microkernel.h. A row's scores become shares by a softmax, so that no row
 * outweighs the others only because its query is long, and the shares of the rows are added. Bound by arithmetic: 2 d operations per row and page. */
#pragma once

#include "microkernel.h"
#include "page_score.h"
#include "page_select.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kScoredPages = 64;

/* A task's memory. `stride` is the number of pages, padded. */
struct ChooseTile {
  float *queries;  /* [rows, 2, d], both forms of prepare_query */
  float *spreads;  /* [rows] */
  float *panel;    /* [d, kScoredPages] */
  float *other;    /* [rows, kScoredPages] */
  float *scores;   /* [rows, stride] */
  float *best;     /* [stride], by page */
  uint32_t *keys;  /* [stride] */
  int64_t rows, d, stride;

  static int64_t floats(int64_t rows, int64_t d, int64_t stride) {
    return rows * (2 * d + 1 + kScoredPages + stride) + d * kScoredPages + 2 * stride;
  }

  ChooseTile(void *memory, int64_t rows, int64_t d, int64_t stride) : rows(rows), d(d), stride(stride) {
    scores = static_cast<float *>(memory);
    panel = scores + rows * stride;
    other = panel + d * kScoredPages;
    best = other + rows * kScoredPages;
    keys = reinterpret_cast<uint32_t *>(best + stride);
    queries = best + 2 * stride;
    spreads = queries + rows * 2 * d;
  }
};

/* out[rows, kScoredPages] = one form of the queries times rows of statistics, which begin at `pool`, of `count` pages. */
template <typename T>
static void multiply_statistics(const ChooseTile &tile, const float *queries, const T *pool, const int32_t *physical, int64_t count, float *out,
                                int64_t out_stride) {
  for (int64_t page = 0; page < kScoredPages; page++) {
    const T *row = pool + physical[page < count ? page : 0] * tile.d;
    for (int64_t i = 0; i < tile.d; i++) tile.panel[i * kScoredPages + page] = to_float(row[i]);
  }
  for (int64_t c = 0; c < kScoredPages; c += kTileColumns) {
    tile_block(tile.rows, tile.d, queries, 2 * tile.d, tile.panel + c, kScoredPages, out + c, out_stride, false);
  }
}

/* Scores of pages [first, first + count), at most kScoredPages, for all rows, from column `column` on. */
template <typename T>
static void score_pages(const PrefillChooseParams &p, const ChooseTile &tile, int64_t head, int64_t first, int64_t count, int64_t column) {
  const Layout layout(p.cache.desc);
  const int64_t base = layout.vector(p.layer, head, 0);
  const auto rows_of = [base](const void *pool) { return static_cast<const T *>(pool) + base; };
  const int32_t *physical = p.page_table + first;
  float *scores = tile.scores + column;
  multiply_statistics(tile, tile.queries, rows_of(p.scorer == PS_QUEST ? p.cache.max : p.cache.mean), physical, count, scores, tile.stride);
  if (p.scorer == PS_UNIQUE) {
    const float *std = p.cache.std + layout.page(p.layer, head, 0);
    for (int64_t r = 0; r < tile.rows; r++) {
      for (int64_t i = 0; i < count; i++) scores[r * tile.stride + i] += tile.spreads[r] * std[physical[i]];
    }
  } else if (p.scorer != PS_MEAN) {
    const void *pool = p.scorer == PS_QUEST ? p.cache.min : p.cache.variance;
    multiply_statistics(tile, tile.queries + tile.d, rows_of(pool), physical, count, tile.other, kScoredPages);
    for (int64_t r = 0; r < tile.rows; r++) {
      for (int64_t i = 0; i < count; i++) {
        const float other = tile.other[r * kScoredPages + i];
        scores[r * tile.stride + i] += p.scorer == PS_QUEST ? other : p.lambda * __builtin_sqrtf(other);
      }
    }
  }
}

/* The logarithm of the sum of e^score over the scores that are not NaN. `count` is a multiple of kScoredPages. */
static float log_sum(const float *scores, int64_t count) {
  Vec largest = set1(-__builtin_inff()), sum{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = load(scores + i);
    largest = (Vec)(((VecInt)x & (x > largest)) | ((VecInt)largest & ~(x > largest)));
  }
  const float most = reduce_max(largest);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = load(scores + i);
    sum += (Vec)((VecInt)exp(x - most) & (x > set1(-__builtin_inff())));
  }
  return most + __builtin_logf(reduce_add(sum));
}

/* best[page]: the sum over the rows of the page's share of each. */
static void add_shares(const ChooseTile &tile, float *best, float scale, int64_t count) {
  const int64_t padded = (count + kScoredPages - 1) / kScoredPages * kScoredPages;
  for (int64_t page = 0; page < padded; page++) best[page] = 0;
  for (int64_t r = 0; r < tile.rows; r++) {
    float *scores = tile.scores + r * tile.stride;
    for (int64_t page = 0; page < count; page++) scores[page] *= scale;
    for (int64_t page = count; page < padded; page++) scores[page] = -__builtin_inff();
    const float all = log_sum(scores, padded);
    for (int64_t page = 0; page < padded; page += kLanes) store(best + page, load(best + page) + exp(load(scores + page) - all));
  }
}

template <typename T>
static void choose_for_tile(const PrefillChooseParams &p, ChooseTile &tile, int64_t token, int64_t tokens, int64_t head, int64_t first, int64_t end) {
  const PageScoreParams score{p.cache, {}, p.q, nullptr, p.layer, p.scorer, p.lambda};
  const int64_t group = p.cache.desc.num_query_heads / p.cache.desc.num_kv_heads;
  tile.rows = sampled_tokens(tokens) * group;
  for (int64_t r = 0; r < tile.rows; r++) {
    const float *q = p.q.row(token + sampled_token(tokens, r / group)) + (head * group + r % group) * tile.d;
    tile.spreads[r] = prepare_query(score, q, tile.queries + r * 2 * tile.d).spread;
  }
  for (int64_t page = first; page < end; page += kScoredPages) {
    score_pages<T>(p, tile, head, page, end - page < kScoredPages ? end - page : kScoredPages, page - first);
  }
  add_shares(tile, tile.best + first, p.scale, end - first); /* competing pages are columns, and select_row counts all pages */
}

static void prefill_choose(ThreadPool &pool, const PrefillChooseParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, most_rows = kSampledTokens * (desc.num_query_heads / heads), d = desc.head_dim;
  const int64_t most_pages = (p.tiles.start + p.tiles.tokens) / desc.page_size, stride = most_pages + kScoredPages;
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  const auto pages_before = [&](int64_t tile) { return (p.tiles.start + p.tiles.first(tile)) / desc.page_size; };
  pool.reserve_scratch(ChooseTile::floats(most_rows, d, stride) * int64_t(sizeof(float)));
  with_dtype(desc.dtype, [&](auto type) {
    pool.parallel_for(p.tiles.count() * heads, [&](int64_t row, int thread) {
      const int64_t index = row / heads, token = p.tiles.first(index), pages = pages_before(index);
      ChooseTile tile(pool.scratch(thread), most_rows, d, stride);
      if (pages > p.k) choose_for_tile<decltype(type)>(p, tile, token, p.tiles.end(index) - token, row % heads, forced.first, pages - forced.last);
      p.counts[row] = select_row(tile.best, pages, p.k, p.sink_pages, p.recent_pages, tile.keys, p.selected + row * p.k);
    });
  });
  for (int64_t tile = 0; tile < p.tiles.count(); tile++) {
    if (pages_before(tile) > p.k) p.cache.counters->prompt_pages_scored += (pages_before(tile) - forced.last - forced.first) * heads;
  }
}

}  // namespace PS_ISA
}  // namespace ps
