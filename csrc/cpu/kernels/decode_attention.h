/* Attention of one query per sequence over a list of its pages: the selected ones, or all of them in order.
 *
 * A task reads one split of the list for one KV head, in blocks of kBlockTokens: scores of all query heads of the group, softmax
 * with a running maximum, weighted sum of values. Each K and V number is read and widened once for up to four query heads, so the
 * work is bound by the bytes of the pages. The splits depend on the length of the list alone: selecting all pages gives the
 * same bits as dense, on any number of threads. */
#pragma once

#include "page_list.h"

namespace ps {
namespace PS_ISA {

constexpr int64_t kBlockTokens = 64;
constexpr int64_t kOctet = 8; /* the smallest page: tokens that are contiguous for one dimension of the keys */
constexpr int kVectorsAtOnce = kLanes == 4 ? 4 : 2;
constexpr int kOctetsAtOnce = kVectorsAtOnce * kLanes / kOctet;
constexpr int kHeadsAtOnce = 4;
constexpr int64_t kScoreFloats = kHeadsAtOnce * 2 * kBlockTokens; /* a head's scores, and a margin for whole vectors */
constexpr int64_t kPrefetchDims = 8; /* dimensions of keys between two requests for values; divides every d */

/* The pages of one task's block: first and one past the last token that counts, by page. */
struct Block {
  int64_t pages;
  const void *keys[kBlockTokens / kOctet], *values[kBlockTokens / kOctet];
  const float *key_scales[kBlockTokens / kOctet], *value_scales[kBlockTokens / kOctet]; /* nullptr for numbers that lack scales */
  int32_t begin[kBlockTokens / kOctet], end[kBlockTokens / kOctet];
};

/* The result of a split: per query head of the group, the weighted sum of values [d], then maximum and sum of the weights. */
static inline int64_t partial_floats(int64_t d) { return d + 2; }

/* Pages are short and scattered, so the processor cannot predict their addresses: each pass prefetches the data of the next one. */
PS_INLINE void prefetch_bytes(const void *base, int64_t first, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(static_cast<const char *>(base) + first + byte);
}

/* q [group, d] as runs of up to kHeadsAtOnce heads, each [d, heads]: the numbers of one dimension are contiguous. */
static void arrange_queries(const float *q, int64_t group, int64_t d, float *out) {
  for (int64_t first = 0; first < group; first += kHeadsAtOnce) {
    const int64_t heads = group - first < kHeadsAtOnce ? group - first : kHeadsAtOnce;
    for (int64_t h = 0; h < heads; h++) {
      for (int64_t i = 0; i < d; i++) out[first * d + i * heads + h] = q[(first + h) * d + i];
    }
  }
}

/* scores[h, token] for all tokens of the block's pages, including masked ones. Prefetches the block's values. */
template <typename T, int Heads>
PS_INLINE void score_keys(const Block &block, int64_t page_size, int64_t d, const float *q, float *scores) {
  const int64_t octets = block.pages * page_size / kOctet;
  for (int64_t first = 0; first < octets; first += kOctetsAtOnce) {
    const T *base[kOctetsAtOnce];
    const void *values[kOctetsAtOnce];
    constexpr int64_t kOctetStep = kPrefetchDims * kOctet * int64_t(sizeof(T)); /* bytes of values per prefetch */
    PS_UNROLL
    for (int i = 0; i < kOctetsAtOnce; i++) {
      const int64_t octet = first + i < octets ? first + i : first; /* past the end: reads the first octet again and writes to the margin */
      base[i] = static_cast<const T *>(block.keys[octet * kOctet / page_size]) + octet * kOctet % page_size;
      values[i] = static_cast<const T *>(block.values[octet * kOctet / page_size]) + octet * kOctet % page_size * d;
    }
    Vec sum[Heads][kVectorsAtOnce];
    PS_UNROLL
    for (int h = 0; h < Heads; h++) {
      PS_UNROLL
      for (int v = 0; v < kVectorsAtOnce; v++) sum[h][v] = Vec{};
    }
    for (int64_t dims = 0; dims < d; dims += kPrefetchDims) {
      PS_UNROLL
      for (int i = 0; i < kOctetsAtOnce; i++) prefetch_bytes(values[i], dims / kPrefetchDims * kOctetStep, kOctetStep);
      for (int64_t i = dims; i < dims + kPrefetchDims; i++) {
        Vec k[kVectorsAtOnce];
        PS_UNROLL
        for (int v = 0; v < kVectorsAtOnce; v++) {
          const int first_token = v * kLanes, last_token = first_token + kLanes - 1;
          const int64_t row = i * page_size;
          k[v] = load_octets(base[first_token / kOctet] + row + first_token % kOctet, base[last_token / kOctet] + row);
        }
        PS_UNROLL
        for (int h = 0; h < Heads; h++) {
          const Vec x = set1(q[i * Heads + h]);
          PS_UNROLL
          for (int v = 0; v < kVectorsAtOnce; v++) sum[h][v] = fma(x, k[v], sum[h][v]);
        }
      }
    }
    PS_UNROLL
    for (int h = 0; h < Heads; h++) {
      PS_UNROLL
      for (int v = 0; v < kVectorsAtOnce; v++) store(scores + h * 2 * kBlockTokens + first * kOctet + v * kLanes, sum[h][v]);
    }
  }
}

/* Multiplies one head's scores or weights by the scales of their tokens. */
PS_INLINE void multiply_scales(const Block &block, const float *const *scales, int64_t page_size, float *scores) {
  for (int64_t page = 0; page < block.pages; page++) {
    for (int64_t i = 0; i < page_size; i++) scores[page * page_size + i] *= scales[page][i];
  }
}

/* Replaces one head's scores by weights e^(score - maximum), 0 if masked. Returns the factor that rescales the earlier sums. */
PS_INLINE float weigh_block(const Block &block, int64_t page_size, float scale, float *scores, float *maximum, float *total) {
  const int64_t tokens = block.pages * page_size;
  for (int64_t page = 0; page < block.pages; page++) {
    for (int64_t i = 0; i < block.begin[page]; i++) scores[page * page_size + i] = -__builtin_inff();
    for (int64_t i = block.end[page]; i < page_size; i++) scores[page * page_size + i] = -__builtin_inff();
  }
  for (int64_t i = tokens; i % kLanes != 0; i++) scores[i] = -__builtin_inff();
  Vec largest = set1(-__builtin_inff());
  for (int64_t i = 0; i < tokens; i += kLanes) {
    const Vec s = load(scores + i) * scale;
    store(scores + i, s);
    largest = vmax(s, largest);
  }
  const float block_maximum = reduce_max(largest), before = *maximum;
  const float now = block_maximum > before ? block_maximum : before;
  const float limit = now == -__builtin_inff() ? 0.f : now;
  Vec sum{};
  for (int64_t i = 0; i < tokens; i += kLanes) {
    const Vec s = load(scores + i);
    const VecInt masked = s == set1(-__builtin_inff());
    const Vec weight = (Vec)((VecInt)exp(s - limit) & ~masked);
    store(scores + i, weight);
    sum += weight;
  }
  const float factor = before == -__builtin_inff() ? 0.f : exp(set1(before - limit))[0];
  *maximum = now;
  *total = *total * factor + reduce_add(sum);
  return factor;
}

/* out[h] = out[h] * factor[h] + sum_token weight[h, token] * value[token], kVectorsAtOnce vectors of d at a time. Prefetches the next
 * block's keys. */
template <typename T, int Heads>
PS_INLINE void sum_values(const Block &block, const Block &next, int64_t page_size, int64_t d, const float *weights, const float *factor, float *out,
                          int64_t out_stride) {
  for (int64_t column = 0; column < d; column += kVectorsAtOnce * kLanes) {
    const int vectors = d - column >= kVectorsAtOnce * kLanes ? kVectorsAtOnce : 1; /* d is a multiple of 16, a vector at most 16 */
    Vec sum[Heads][kVectorsAtOnce];
    PS_UNROLL
    for (int h = 0; h < Heads; h++) {
      PS_UNROLL
      for (int v = 0; v < kVectorsAtOnce; v++) sum[h][v] = v < vectors ? load(out + h * out_stride + column + v * kLanes) * factor[h] : Vec{};
    }
    for (int64_t page = 0; page < block.pages; page++) {
      const T *values = static_cast<const T *>(block.values[page]) + column;
      const float *w = weights + page * page_size;
      const int64_t share = page_size * kVectorsAtOnce * kLanes * int64_t(sizeof(T));
      if (page < next.pages) prefetch_bytes(next.keys[page], column * page_size * int64_t(sizeof(T)), share);
      for (int64_t i = block.begin[page]; i < block.end[page]; i++) {
        Vec own[kVectorsAtOnce];
        PS_UNROLL
        for (int v = 0; v < kVectorsAtOnce; v++) own[v] = load(values + i * d + (v < vectors ? v : 0) * kLanes);
        PS_UNROLL
        for (int h = 0; h < Heads; h++) {
          const Vec x = set1(w[h * 2 * kBlockTokens + i]);
          PS_UNROLL
          for (int v = 0; v < kVectorsAtOnce; v++) sum[h][v] = fma(x, own[v], sum[h][v]);
        }
      }
    }
    PS_UNROLL
    for (int h = 0; h < Heads; h++) {
      PS_UNROLL
      for (int v = 0; v < vectors; v++) store(out + h * out_stride + column + v * kLanes, sum[h][v]);
    }
  }
}

/* One block for Heads query heads; partial: their rows of partial_floats(d). */
template <typename T, int Heads>
static void attend_heads(const Block &block, const Block &next, int64_t page_size, int64_t d, float scale, const float *q, float *partial,
                         float *scores) {
  score_keys<T, Heads>(block, page_size, d, q, scores);
  float factor[Heads];
  PS_UNROLL
  for (int h = 0; h < Heads; h++) {
    float *state = partial + h * partial_floats(d) + d, *own = scores + h * 2 * kBlockTokens;
    if constexpr (kIsScaled<T>) multiply_scales(block, block.key_scales, page_size, own);
    factor[h] = weigh_block(block, page_size, scale, own, state, state + 1);
    if constexpr (kIsScaled<T>) multiply_scales(block, block.value_scales, page_size, own);
  }
  sum_values<T, Heads>(block, next, page_size, d, scores, factor, partial, partial_floats(d));
}

template <typename T>
static void attend_block(const Block &block, const Block &next, int64_t page_size, int64_t d, int64_t group, float scale, const float *q,
                         float *partial, float *scores) {
  for (int64_t h = 0; h < group; h += kHeadsAtOnce) {
    const int64_t heads = group - h < kHeadsAtOnce ? group - h : kHeadsAtOnce;
    const float *query = q + h * d;
    float *out = partial + h * partial_floats(d);
    if (heads == 4) attend_heads<T, 4>(block, next, page_size, d, scale, query, out, scores);
    else if (heads == 3) attend_heads<T, 3>(block, next, page_size, d, scale, query, out, scores);
    else if (heads == 2) attend_heads<T, 2>(block, next, page_size, d, scale, query, out, scores);
    else attend_heads<T, 1>(block, next, page_size, d, scale, query, out, scores);
  }
}

/* The pages of the list from index `first` on, as many as fit a block, before `end`. */
template <typename T>
static Block gather_block(const DecodeAttentionParams &p, const PageList &list, int64_t head, int64_t first, int64_t end) {
  const Layout layout(p.cache.desc);
  const int64_t page_size = layout.page_size;
  Block block{};
  for (int64_t i = first; i < end && block.pages < kBlockTokens / page_size; i++) {
    const int64_t logical = list.selected ? list.selected[i] : list.first_page + i, start = logical * page_size;
    const int64_t base = layout.tokens(p.layer, head, list.table[logical]);
    block.keys[block.pages] = static_cast<const T *>(p.cache.keys) + base;
    block.values[block.pages] = static_cast<const T *>(p.cache.values) + base;
    if constexpr (kIsScaled<T>) {
      const int64_t token = layout.token(p.layer, head, list.table[logical]);
      block.key_scales[block.pages] = p.cache.key_scale + token;
      block.value_scales[block.pages] = p.cache.value_scale + token;
    }
    block.begin[block.pages] = static_cast<int32_t>(list.first_token > start ? list.first_token - start : 0);
    block.end[block.pages] = static_cast<int32_t>(list.length - start < page_size ? list.length - start : page_size);
    block.pages++;
  }
  return block;
}

template <typename T>
static void attend_split(const DecodeAttentionParams &p, const PageList &list, int64_t sequence, int64_t head, int64_t split, float *partial,
                         float *memory) {
  const int64_t d = p.cache.desc.head_dim, group = p.cache.desc.num_query_heads / p.cache.desc.num_kv_heads;
  float *scores = memory, *q = memory + kScoreFloats;
  arrange_queries(p.q.row(sequence) + head * group * d, group, d, q);
  for (int64_t h = 0; h < group; h++) {
    float *row = partial + h * partial_floats(d);
    for (int64_t i = 0; i < d + 2; i++) row[i] = i == d ? -__builtin_inff() : 0.f;
  }
  const int64_t first = list.count * split / list.splits, end = list.count * (split + 1) / list.splits;
  Block block = gather_block<T>(p, list, head, first, end);
  for (int64_t i = first; block.pages > 0;) {
    i += block.pages;
    const Block next = gather_block<T>(p, list, head, i, end);
    attend_block<T>(block, next, p.cache.desc.page_size, d, group, p.scale, q, partial, scores);
    block = next;
  }
}

/* Joins the splits of one query head, in order. */
static void merge_splits(const float *partials, int64_t splits, int64_t split_stride, int64_t d, float *out) {
  float maximum = -__builtin_inff(), total = 0;
  for (int64_t s = 0; s < splits; s++) {
    const float m = partials[s * split_stride + d];
    maximum = m > maximum ? m : maximum;
  }
  const float limit = maximum == -__builtin_inff() ? 0.f : maximum;
  for (int64_t i = 0; i < d; i++) out[i] = 0;
  for (int64_t s = 0; s < splits; s++) {
    const float *row = partials + s * split_stride;
    const float factor = row[d] == -__builtin_inff() ? 0.f : exp(set1(row[d] - limit))[0];
    total += row[d + 1] * factor;
    for (int64_t i = 0; i < d; i++) out[i] += row[i] * factor;
  }
  for (int64_t i = 0; i < d; i++) out[i] /= total;
}

static void decode_attention(ThreadPool &pool, const DecodeAttentionParams &p) {
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t heads = desc.num_kv_heads, d = desc.head_dim, group = desc.num_query_heads / heads, rows = p.sequences.sequences * heads;
  const int64_t split_stride = group * partial_floats(d), row_stride = kMaxSplits * split_stride;
  float *partials = static_cast<float *>(p.cache.scratch);
  int64_t most_splits = 1;
  for (int64_t row = 0; row < rows; row++) {
    const PageList list = list_pages(p, row / heads, row % heads);
    most_splits = list.splits > most_splits ? list.splits : most_splits;
    p.cache.counters->pages_attended += list.count;
    p.cache.counters->pages_in_context += (list.length + desc.page_size - 1) / desc.page_size;
  }
  pool.reserve_scratch((kScoreFloats + group * d) * int64_t(sizeof(float)));
  with_kv_type(desc, [&](auto type) {
    pool.parallel_for(rows * most_splits, [&](int64_t task, int thread) {
      const int64_t row = task / most_splits, split = task % most_splits;
      const PageList list = list_pages(p, row / heads, row % heads);
      if (split >= list.splits) return;
      attend_split<decltype(type)>(p, list, row / heads, row % heads, split, partials + row * row_stride + split * split_stride,
                                   static_cast<float *>(pool.scratch(thread)));
    });
  });
  parallel_ranges(pool, rows, rows_per_task(most_splits * split_stride), [&](int64_t first, int64_t end) {
    for (int64_t row = first; row < end; row++) {
      const int64_t splits = list_pages(p, row / heads, row % heads).splits;
      for (int64_t h = 0; h < group; h++) {
        float *out = p.out.row(row / heads) + (row % heads * group + h) * d;
        merge_splits(partials + row * row_stride + h * partial_floats(d), splits, split_stride, d, out);
      }
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
