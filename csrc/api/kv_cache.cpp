/* Checks and dispatch of the operations on the KV cache. */
#include <algorithm>

#include "tensors.h"

using namespace ps;

namespace {

void check_layer(const ps_cache &cache, int32_t layer) {
  require(layer >= 0 && layer < cache.here().desc.num_layers, "Layer ", int64_t(layer), " is outside the cache's ",
          int64_t(cache.here().desc.num_layers));
}

/* page_table [B, M] (nullptr if it is not read) and lengths [B]. */
SequencesView check_sequences(const ps_cache &cache, const ps_tensor *page_table, const ps_tensor *lengths, int64_t max_pages) {
  const Checked l = check_tensor(*cache.device, "lengths", lengths, kI32, {-1});
  require(l.shape[0] <= cache.here().desc.max_sequences, "More sequences than max_sequences of the cache");
  require(max_pages <= cache.here().desc.max_pages_per_sequence, "More pages per sequence than max_pages_per_sequence of the cache");
  SequencesView view{nullptr, l.ints(), l.shape[0], 0, max_pages};
  if (page_table != nullptr) {
    const Checked p = check_tensor(*cache.device, "page_table", page_table, kI32, {l.shape[0], max_pages});
    view.page_table = p.ints();
    view.table_stride = p.stride;
  }
  return view;
}

int64_t columns(const ps_tensor *tensor, const char *name) {
  require(tensor != nullptr, name, " is missing");
  return tensor->shape[tensor->rank == 3 ? 2 : tensor->rank == 2 ? 1 : 0];
}

void check_scorer(const ps_cache &cache, int32_t scorer) {
  const int32_t statistics = cache.here().desc.statistics;
  require(scorer >= PS_UNIQUE && scorer <= PS_MEAN, "Unknown scorer ", int64_t(scorer));
  require(scorer != PS_DIAG || statistics & PS_STATISTICS_VARIANCE, "The scorer diag requires variances, which the cache does not store");
  require(scorer != PS_QUEST || statistics & PS_STATISTICS_MIN_MAX, "The scorer quest requires minima and maxima, which the cache does not store");
}

PageScoreParams check_score(const ps_cache &cache, int32_t layer, int32_t scorer, float lambda, const ps_tensor *q, const ps_tensor *page_table,
                            const ps_tensor *lengths, const ps_tensor *scores) {
  check_layer(cache, layer);
  check_scorer(cache, scorer);
  const ps_cache_desc &desc = cache.here().desc;
  const SequencesView sequences = check_sequences(cache, page_table, lengths, columns(page_table, "page_table"));
  const Checked a = check_tensor(*cache.device, "q", q, kF32, {sequences.sequences, desc.num_query_heads, desc.head_dim});
  const Checked s = check_dense(*cache.device, "scores", scores, kF32, {sequences.sequences, desc.num_kv_heads, sequences.max_pages});
  require_apart("scores", scores, {page_table, lengths});
  return {cache.here(), sequences, a.rows<const float>(), s.floats(), layer, static_cast<ps_scorer>(scorer), lambda};
}

PageSelectParams check_select(const ps_cache &cache, int32_t sink_pages, int32_t recent_pages, const ps_tensor *scores, const ps_tensor *lengths,
                              const ps_tensor *selected, const ps_tensor *counts) {
  const ps_cache_desc &desc = cache.here().desc;
  require(sink_pages >= 0 && recent_pages >= 0, "sink_pages and recent_pages cannot be negative");
  const SequencesView sequences = check_sequences(cache, nullptr, lengths, columns(scores, "scores"));
  const Checked s = check_dense(*cache.device, "scores", scores, kF32, {sequences.sequences, desc.num_kv_heads, sequences.max_pages});
  const Checked p = check_dense(*cache.device, "selected", selected, kI32, {sequences.sequences, desc.num_kv_heads, -1});
  const Checked c = check_dense(*cache.device, "counts", counts, kI32, {sequences.sequences, desc.num_kv_heads});
  require_apart("selected", selected, {lengths});
  require_apart("counts", counts, {lengths});
  return {cache.here(), sequences, s.floats(), p.ints(), c.ints(), p.shape[2], sink_pages, recent_pages};
}

DecodeAttentionParams check_attend(const ps_cache &cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                                   const ps_tensor *lengths, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  check_layer(cache, layer);
  const ps_cache_desc &desc = cache.here().desc;
  require(window >= 0, "window cannot be negative");
  require((selected == nullptr) == (counts == nullptr), "Either both or neither of selected and counts must be NULL");
  require(selected == nullptr || window == 0, "A layer with a sliding window does not select pages");
  const SequencesView sequences = check_sequences(cache, page_table, lengths, columns(page_table, "page_table"));
  const int64_t batch = sequences.sequences;
  const Checked a = check_tensor(*cache.device, "q", q, kF32, {batch, desc.num_query_heads, desc.head_dim});
  const Checked o = check_tensor(*cache.device, "out", out, kF32, {batch, desc.num_query_heads, desc.head_dim});
  DecodeAttentionParams params{cache.here(), sequences, a.rows<const float>(), nullptr, nullptr, o.rows<float>(), 0, layer, window, scale};
  if (selected != nullptr) {
    const Checked p = check_dense(*cache.device, "selected", selected, kI32, {batch, desc.num_kv_heads, -1});
    params.selected = p.ints();
    params.counts = check_dense(*cache.device, "counts", counts, kI32, {batch, desc.num_kv_heads}).ints();
    params.k = p.shape[2];
  }
  require_apart("out", out, {page_table, lengths, selected, counts});
  return params;
}

AppendRotatedParams check_append_rotated(const ps_cache &cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm,
                                         const ps_tensor *q_table, const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k,
                                         const ps_tensor *v, const ps_tensor *slots) {
  check_layer(cache, layer);
  const ps_cache_desc &desc = cache.here().desc;
  const ps_device &device = *cache.device;
  require((q_norm == nullptr) == (k_norm == nullptr), "Either both or neither of q_norm and k_norm must be NULL");
  const Checked s = check_tensor(device, "slots", slots, kI32, {-1});
  const int64_t tokens = s.shape[0];
  const Checked a = check_tensor(device, "q", q, kF32, {tokens, desc.num_query_heads, desc.head_dim});
  const Checked b = check_tensor(device, "k", k, kF32, {tokens, desc.num_kv_heads, desc.head_dim});
  const Checked c = check_tensor(device, "v", v, kF32, {tokens, desc.num_kv_heads, desc.head_dim});
  const Checked of_q = check_tensor(device, "q_table", q_table, kF32, {tokens, -1});
  const Checked of_k = check_tensor(device, "k_table", k_table, kF32, {tokens, of_q.shape[1]});
  require_apart("q", q, {slots});
  require_apart("k", k, {slots});
  require(of_q.shape[1] % 2 == 0 && of_q.shape[1] <= desc.head_dim, "q_table is wider than a head, or its width is odd");
  auto norm = [&](const char *name, const ps_tensor *weight) {
    return weight == nullptr ? Typed{} : check_tensor(device, name, weight, kFloats, {desc.head_dim}).typed();
  };
  return {{cache.here(), b.rows<const float>(), c.rows<const float>(), s.ints(), tokens, layer},
          a.rows<float>(),
          b.rows<float>(),
          norm("q_norm", q_norm),
          norm("k_norm", k_norm),
          of_q.rows<const float>(),
          of_k.rows<const float>(),
          of_q.shape[1] / 2,
          eps};
}

PageChooseParams check_choose(const ps_cache &cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                              const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                              const ps_tensor *selected, const ps_tensor *counts) {
  const PageChooseParams params{check_score(cache, layer, scorer, lambda, q, page_table, lengths, scores),
                                check_select(cache, sink_pages, recent_pages, scores, lengths, selected, counts)};
  require_apart("selected", selected, {page_table, counts});
  require_apart("counts", counts, {page_table});
  return params;
}

SparseAttentionParams check_sparse(const ps_cache &cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                                   float scale, const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                                   const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  const PageChooseParams choose =
      check_choose(cache, layer, scorer, lambda, sink_pages, recent_pages, q, page_table, lengths, scores, selected, counts);
  return {choose, check_attend(cache, layer, scale, 0, q, page_table, lengths, selected, counts, out)};
}

/* The queries of consecutive tokens and the pages of their sequence. */
struct Chunk {
  Checked q, page_table;
};

Chunk check_chunk(const ps_cache &cache, int32_t start, const ps_tensor *q, const ps_tensor *page_table) {
  const ps_cache_desc &desc = cache.here().desc;
  require(start >= 0, "start cannot be negative");
  const Checked a = check_tensor(*cache.device, "q", q, kF32, {-1, desc.num_query_heads, desc.head_dim});
  const Checked p = check_tensor(*cache.device, "page_table", page_table, kI32, {-1});
  require(start + a.shape[0] <= p.shape[0] * desc.page_size, "The page table is too short for the last token");
  require(start + a.shape[0] <= desc.max_pages_per_sequence * desc.page_size, "More tokens than max_pages_per_sequence of the cache can hold");
  return {a, p};
}

PrefillAttentionParams check_prefill(const ps_cache &cache, int32_t layer, float scale, int32_t window, int32_t start, const ps_tensor *q,
                                     const ps_tensor *page_table, const ps_tensor *out) {
  check_layer(cache, layer);
  require(window >= 0, "window cannot be negative");
  const Chunk chunk = check_chunk(cache, start, q, page_table);
  const int64_t tokens = chunk.q.shape[0];
  const Checked o = check_tensor(*cache.device, "out", out, kF32, {tokens, cache.here().desc.num_query_heads, cache.here().desc.head_dim});
  require_apart("out", out, {page_table});
  return {
      cache.here(), chunk.q.rows<const float>(), chunk.page_table.ints(), o.rows<float>(), tokens, chunk.page_table.shape[0], start, layer, window,
      scale};
}

PrefillTiles check_tiles(int32_t start, int64_t tokens, int32_t tile_tokens) {
  require(tile_tokens >= 1, "tile_tokens must be at least 1");
  require(tokens >= 1, "q has no tokens");
  return {start, tokens, tile_tokens};
}

struct Selected {
  int32_t *pages, *counts;
  int64_t k;
};

Selected check_tile_selection(const ps_cache &cache, const PrefillTiles &tiles, const ps_tensor *selected, const ps_tensor *counts) {
  const int64_t heads = cache.here().desc.num_kv_heads;
  const Checked s = check_dense(*cache.device, "selected", selected, kI32, {tiles.count(), heads, -1});
  const Checked c = check_dense(*cache.device, "counts", counts, kI32, {tiles.count(), heads});
  return {s.ints(), c.ints(), s.shape[2]};
}

}  // namespace

extern "C" {

int32_t ps_append_kv(ps_cache *cache, int32_t layer, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots) {
  return guard_each_child(cache, [&] {
    check_layer(*cache, layer);
    const ps_cache_desc &desc = cache->here().desc;
    const Checked s = check_tensor(*cache->device, "slots", slots, kI32, {-1});
    const Checked a = check_tensor(*cache->device, "k", k, kF32, {s.shape[0], desc.num_kv_heads, desc.head_dim});
    const Checked b = check_tensor(*cache->device, "v", v, kF32, {s.shape[0], desc.num_kv_heads, desc.head_dim});
    append_kv(*cache->device->backend, {cache->here(), a.rows<const float>(), b.rows<const float>(), s.ints(), s.shape[0], layer});
  });
}

int32_t ps_append_rotated(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm, const ps_tensor *q_table,
                          const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots) {
  return guard_each_child(cache, [&] {
    append_rotated(*cache->device->backend, check_append_rotated(*cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots));
  });
}

int32_t ps_append_attend(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm, const ps_tensor *q_table,
                         const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots, float scale,
                         int32_t window, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    const AppendRotatedParams append = check_append_rotated(*cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots);
    const DecodeAttentionParams attend = check_attend(*cache, layer, scale, window, q, page_table, lengths, nullptr, nullptr, out);
    require_apart("out", out, {slots});
    append_attend(*cache->device->backend, append, attend);
  });
}

int32_t ps_page_statistics(ps_cache *cache, int32_t page, int32_t num_tokens) {
  return guard_each_child(cache, [&] {
    const ps_cache_desc &desc = cache->here().desc;
    require(page >= 0 && page < desc.num_pages, "Page ", int64_t(page), " is outside the pool");
    require(num_tokens >= 1 && num_tokens <= desc.page_size, "num_tokens of a page must be from 1 to ", int64_t(desc.page_size));
    page_statistics(*cache->device->backend, {cache->here(), page, num_tokens});
  });
}

int32_t ps_page_score(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, const ps_tensor *q, const ps_tensor *page_table,
                      const ps_tensor *lengths, const ps_tensor *scores) {
  return guard_each_child(cache,
                          [&] { page_score(*cache->device->backend, check_score(*cache, layer, scorer, lambda, q, page_table, lengths, scores)); });
}

int32_t ps_page_select(ps_cache *cache, int32_t sink_pages, int32_t recent_pages, const ps_tensor *scores, const ps_tensor *lengths,
                       const ps_tensor *selected, const ps_tensor *counts) {
  return guard_each_child(cache, [&] {
    page_select(*cache->device->backend, check_select(*cache, sink_pages, recent_pages, scores, lengths, selected, counts));
  });
}

int32_t ps_page_choose(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages, const ps_tensor *q,
                       const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores, const ps_tensor *selected,
                       const ps_tensor *counts) {
  return guard_each_child(cache, [&] {
    page_choose(*cache->device->backend,
                check_choose(*cache, layer, scorer, lambda, sink_pages, recent_pages, q, page_table, lengths, scores, selected, counts));
  });
}

int32_t ps_decode_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                            const ps_tensor *lengths, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    decode_attention(*cache->device->backend, check_attend(*cache, layer, scale, window, q, page_table, lengths, selected, counts, out));
  });
}

int32_t ps_page_mass(ps_cache *cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                     const ps_tensor *lengths, const ps_tensor *mass) {
  return guard_each_child(cache, [&] {
    check_layer(*cache, layer);
    require(window >= 0, "window cannot be negative");
    const ps_cache_desc &desc = cache->here().desc;
    const SequencesView sequences = check_sequences(*cache, page_table, lengths, columns(page_table, "page_table"));
    const int64_t batch = sequences.sequences;
    const Checked a = check_tensor(*cache->device, "q", q, kF32, {batch, desc.num_query_heads, desc.head_dim});
    const Checked m = check_dense(*cache->device, "mass", mass, kF32, {batch, desc.num_query_heads, sequences.max_pages});
    require_apart("mass", mass, {page_table, lengths});
    page_mass(*cache->device->backend, {cache->here(), sequences, a.rows<const float>(), m.floats(), layer, window, scale});
  });
}

int32_t ps_sparse_attention(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages, float scale,
                            const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                            const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    sparse_attention(*cache->device->backend, check_sparse(*cache, layer, scorer, lambda, sink_pages, recent_pages, scale, q, page_table, lengths,
                                                           scores, selected, counts, out));
  });
}

int32_t ps_append_sparse_attention(ps_cache *cache, int32_t layer, float eps, const ps_tensor *q_norm, const ps_tensor *k_norm,
                                   const ps_tensor *q_table, const ps_tensor *k_table, const ps_tensor *q, const ps_tensor *k, const ps_tensor *v,
                                   const ps_tensor *slots, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages, float scale,
                                   const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores, const ps_tensor *selected,
                                   const ps_tensor *counts, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    const AppendRotatedParams append = check_append_rotated(*cache, layer, eps, q_norm, k_norm, q_table, k_table, q, k, v, slots);
    const SparseAttentionParams attend =
        check_sparse(*cache, layer, scorer, lambda, sink_pages, recent_pages, scale, q, page_table, lengths, scores, selected, counts, out);
    require_apart("scores", scores, {slots});
    require_apart("selected", selected, {slots});
    require_apart("counts", counts, {slots});
    require_apart("out", out, {slots});
    append_sparse_attention(*cache->device->backend, append, attend);
  });
}

int32_t ps_prefill_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, int32_t start, const ps_tensor *q,
                             const ps_tensor *page_table, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    prefill_attention(*cache->device->backend, check_prefill(*cache, layer, scale, window, start, q, page_table, out));
  });
}

int32_t ps_prefill_choose(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages, float scale,
                          int32_t start, int32_t tile_tokens, const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *selected,
                          const ps_tensor *counts) {
  return guard_each_child(cache, [&] {
    check_layer(*cache, layer);
    check_scorer(*cache, scorer);
    require(sink_pages >= 0 && recent_pages >= 0, "sink_pages and recent_pages cannot be negative");
    const Chunk chunk = check_chunk(*cache, start, q, page_table);
    const PrefillTiles tiles = check_tiles(start, chunk.q.shape[0], tile_tokens);
    const Selected s = check_tile_selection(*cache, tiles, selected, counts);
    require_apart("selected", selected, {page_table, counts});
    require_apart("counts", counts, {page_table});
    prefill_choose(*cache->device->backend, {cache->here(), tiles, chunk.q.rows<const float>(), chunk.page_table.ints(), s.pages, s.counts, s.k,
                                             layer, sink_pages, recent_pages, static_cast<ps_scorer>(scorer), lambda, scale});
  });
}

int32_t ps_sparse_prefill_attention(ps_cache *cache, int32_t layer, float scale, int32_t start, int32_t tile_tokens, const ps_tensor *q,
                                    const ps_tensor *page_table, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  return guard_each_child(cache, [&] {
    PrefillAttentionParams params = check_prefill(*cache, layer, scale, 0, start, q, page_table, out);
    params.tile_tokens = check_tiles(start, params.tokens, tile_tokens).tile_tokens;
    const Selected s = check_tile_selection(*cache, params.tiles(), selected, counts);
    params.selected = s.pages;
    params.counts = s.counts;
    params.k = s.k;
    require_apart("out", out, {selected, counts});
    prefill_attention(*cache->device->backend, params);
  });
}

int32_t ps_cache_read(ps_cache *cache, int32_t layer, int32_t page, int32_t field, float *out, int64_t num_floats) {
  return guard_child(cache, [&] {
    check_layer(*cache, layer);
    require_running(*cache->device);
    const ps_cache_desc &desc = cache->here().desc;
    require(page >= 0 && page < desc.num_pages, "Page ", int64_t(page), " is outside the pool");
    require(field >= PS_FIELD_KEYS && field <= PS_FIELD_MAX, "Unknown cache field ", int64_t(field));
    const bool stored = (field != PS_FIELD_VAR || cache->here().variance) && (field < PS_FIELD_MIN || cache->here().min);
    require(stored, "The cache does not store this statistic");
    const int64_t width = field <= PS_FIELD_VALUES ? int64_t(desc.page_size) * desc.head_dim : field == PS_FIELD_STD ? 1 : desc.head_dim;
    require(out != nullptr && num_floats == desc.num_kv_heads * width, "The field has ", int64_t(desc.num_kv_heads * width), " floats, but out has ",
            int64_t(num_floats));
    cache_read(*cache->device->backend, cache->here(), layer, page, static_cast<ps_cache_field>(field), out);
  });
}

int32_t ps_cache_counters(ps_cache *cache, ps_counters *out) {
  return guard_child(cache, [&] {
    require_running(*cache->device);
    require(out != nullptr, "The struct for the counters is NULL");
    ps_counters sum{};
    for_members(*cache->device, [&] {
      ps_counters own;
      memory_read(*cache->device->backend, &own, cache->here().counters, sizeof own);
      sum.rows_selected += own.rows_selected;
      sum.pages_scored += own.pages_scored;
      sum.copies_scored += own.copies_scored;
      sum.pages_attended += own.pages_attended;
      sum.pages_in_context += own.pages_in_context;
      sum.prompt_pages_scored += own.prompt_pages_scored;
      sum.prompt_pages_attended += own.prompt_pages_attended;
      sum.prompt_pages_visible += own.prompt_pages_visible;
      sum.selections = std::max(sum.selections, own.selections); /* one call, whatever the number of members */
    });
    *out = sum;
  });
}

int32_t ps_cache_reset_counters(ps_cache *cache) {
  return guard_each_child(cache, [&] {
    require_running(*cache->device);
    const ps_counters zero{};
    memory_write(*cache->device->backend, cache->here().counters, &zero, sizeof(zero));
  });
}

}  // extern "C"
