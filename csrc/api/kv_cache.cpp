/* The KV cache: its memory, and checks and dispatch of the operations on it. */
#include <memory>

#include "tensors.h"

using namespace ps;

namespace {

constexpr int64_t kAlignmentBytes = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes; }

void check_desc(const ps_cache_desc *desc) {
  require(desc != nullptr, "No cache description given");
  const ps_cache_desc &d = *desc;
  const bool page_size_ok = d.page_size == 8 || d.page_size == 16 || d.page_size == 32 || d.page_size == 64;
  require(page_size_ok, "Page size ", int64_t(d.page_size), " is not supported; wanted 8, 16, 32 or 64");
  require(d.head_dim >= 16 && d.head_dim <= 512 && d.head_dim % 16 == 0,
          "Head size ", int64_t(d.head_dim), " is not supported; wanted a multiple of 16 up to 512");
  require(d.num_layers >= 1 && d.num_layers <= 4096, "num_layers must lie in [1, 4096]");
  require(d.num_kv_heads >= 1 && d.num_query_heads >= 1 && d.num_query_heads <= 4096 && d.num_query_heads % d.num_kv_heads == 0,
          "num_query_heads must be a multiple of num_kv_heads, at most 4096");
  require(d.dtype == PS_F32 || d.dtype == PS_F16 || d.dtype == PS_BF16, "Pages hold f32, f16 or bf16");
  require(d.statistics >= 0 && d.statistics <= (PS_STATISTICS_VARIANCE | PS_STATISTICS_MIN_MAX | PS_STATISTICS_F8), "Unknown page statistics asked for");
  require((d.statistics & PS_STATISTICS_F8) == 0 || d.dtype != PS_F32, "8-bit means go with pages of 16 bits");
  require(d.max_sequences >= 1 && d.max_sequences <= 65536, "max_sequences must lie in [1, 65536]");
  require(d.num_pages >= 1 && d.num_pages <= INT32_MAX / d.page_size, "num_pages must be at least 1, and its slots must fit an i32");
  require((d.group_pages == 0 || d.group_pages == 8) && d.reserved == 0, "group_pages must be 0 or 8");
  require(d.group_pages == 0 || d.num_pages % d.group_pages == 0, "num_pages must be a multiple of group_pages");
  require(d.max_pages_per_sequence >= 1 && d.max_pages_per_sequence <= INT32_MAX / d.page_size,
          "max_pages_per_sequence must be at least 1, and its tokens must fit an i32");
}

/* Offsets of the pools in the cache's one allocation; -1 for one that is not kept. */
struct Plan {
  int64_t keys, values, mean, mean_scale, std, variance, min, max, group_mean, group_std, scratch, counters, total;
  ps_cache_bytes bytes;
};

Plan plan_cache(const ps_cache_desc &desc) {
  const int64_t rows = int64_t(desc.num_layers) * desc.num_kv_heads * desc.num_pages;
  const int64_t vector = aligned(rows * desc.head_dim * dtype_bytes(desc.dtype));
  Plan plan{};
  auto place = [&plan](int64_t bytes, bool kept) {
    const int64_t offset = plan.total;
    plan.total += kept ? bytes : 0;
    return kept ? offset : -1;
  };
  plan.keys = place(vector * desc.page_size, true);
  plan.values = place(vector * desc.page_size, true);
  plan.bytes.kv = plan.total;
  const bool f8 = desc.statistics & PS_STATISTICS_F8;
  plan.mean = place(f8 ? aligned(rows * desc.head_dim) : vector, true);
  plan.mean_scale = place(aligned(rows * 4), f8);
  plan.std = place(aligned(rows * 4), true);
  plan.variance = place(vector, desc.statistics & PS_STATISTICS_VARIANCE);
  plan.min = place(vector, desc.statistics & PS_STATISTICS_MIN_MAX);
  plan.max = place(vector, desc.statistics & PS_STATISTICS_MIN_MAX);
  const bool groups = kKeepsGroups && desc.group_pages > 0;
  const int64_t group_rows = groups ? rows / desc.group_pages : 0;
  plan.group_mean = place(aligned(group_rows * desc.head_dim * dtype_bytes(desc.dtype)), groups);
  plan.group_std = place(aligned(group_rows * 4), groups);
  plan.bytes.statistics = plan.total - plan.bytes.kv;
  plan.scratch = place(aligned(cache_scratch_bytes(desc)), true);
  plan.counters = place(aligned(sizeof(ps_counters)), true);
  plan.bytes.scratch = plan.total - plan.bytes.kv - plan.bytes.statistics;
  return plan;
}

CacheView view_cache(const ps_cache_desc &desc, const Plan &plan, void *memory) {
  auto at = [memory](int64_t offset) -> void * { return offset < 0 ? nullptr : static_cast<char *>(memory) + offset; };
  CacheView view{};
  view.desc = desc;
  view.keys = at(plan.keys);
  view.values = at(plan.values);
  view.mean = at(plan.mean);
  view.mean_scale = static_cast<float *>(at(plan.mean_scale));
  view.std = static_cast<float *>(at(plan.std));
  view.variance = at(plan.variance);
  view.min = at(plan.min);
  view.max = at(plan.max);
  view.group_mean = at(plan.group_mean);
  view.group_std = static_cast<float *>(at(plan.group_std));
  view.scratch = at(plan.scratch);
  view.counters = static_cast<ps_counters *>(at(plan.counters));
  return view;
}

void check_layer(const ps_cache &cache, int32_t layer) {
  require(layer >= 0 && layer < cache.view.desc.num_layers,
          "Layer ", int64_t(layer), " lies outside the cache's ", int64_t(cache.view.desc.num_layers));
}

/* page_table [B, M] (nullptr where it is not read) and lengths [B]. */
SequencesView check_sequences(const ps_cache &cache, const ps_tensor *page_table, const ps_tensor *lengths, int64_t max_pages) {
  const Checked l = check_tensor(*cache.device, "lengths", lengths, kI32, {-1});
  require(l.shape[0] <= cache.view.desc.max_sequences, "More sequences than the cache was made for");
  require(max_pages <= cache.view.desc.max_pages_per_sequence, "More pages a sequence than the cache was made for");
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

PageScoreParams check_score(const ps_cache &cache, int32_t layer, int32_t scorer, float lambda, const ps_tensor *q,
                            const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores) {
  check_layer(cache, layer);
  const ps_cache_desc &desc = cache.view.desc;
  require(scorer >= PS_UNIQUE && scorer <= PS_MEAN, "Unknown scorer ", int64_t(scorer));
  require(scorer != PS_DIAG || desc.statistics & PS_STATISTICS_VARIANCE, "The cache keeps no variances, which diag needs");
  require(scorer != PS_QUEST || desc.statistics & PS_STATISTICS_MIN_MAX, "The cache keeps no minima and maxima, which quest needs");
  const SequencesView sequences = check_sequences(cache, page_table, lengths, columns(page_table, "page_table"));
  const Checked a = check_tensor(*cache.device, "q", q, kF32, {sequences.sequences, desc.num_query_heads, desc.head_dim});
  const Checked s = check_dense(*cache.device, "scores", scores, kF32, {sequences.sequences, desc.num_kv_heads, sequences.max_pages});
  return {cache.view, sequences, a.rows<const float>(), s.floats(), layer, static_cast<ps_scorer>(scorer), lambda};
}

PageSelectParams check_select(const ps_cache &cache, int32_t sink_pages, int32_t recent_pages, const ps_tensor *scores,
                              const ps_tensor *lengths, const ps_tensor *selected, const ps_tensor *counts) {
  const ps_cache_desc &desc = cache.view.desc;
  require(sink_pages >= 0 && recent_pages >= 0, "sink_pages and recent_pages cannot be negative");
  const SequencesView sequences = check_sequences(cache, nullptr, lengths, columns(scores, "scores"));
  const Checked s = check_dense(*cache.device, "scores", scores, kF32, {sequences.sequences, desc.num_kv_heads, sequences.max_pages});
  const Checked p = check_dense(*cache.device, "selected", selected, kI32, {sequences.sequences, desc.num_kv_heads, -1});
  const Checked c = check_dense(*cache.device, "counts", counts, kI32, {sequences.sequences, desc.num_kv_heads});
  return {cache.view, sequences, s.floats(), p.ints(), c.ints(), p.shape[2], sink_pages, recent_pages};
}

DecodeAttentionParams check_attend(const ps_cache &cache, int32_t layer, float scale, int32_t window, const ps_tensor *q,
                                   const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *selected,
                                   const ps_tensor *counts, const ps_tensor *out) {
  check_layer(cache, layer);
  const ps_cache_desc &desc = cache.view.desc;
  require(window >= 0, "window cannot be negative");
  require((selected == nullptr) == (counts == nullptr), "selected and counts come together");
  require(selected == nullptr || window == 0, "A layer with a sliding window does not select pages");
  const SequencesView sequences = check_sequences(cache, page_table, lengths, columns(page_table, "page_table"));
  const int64_t batch = sequences.sequences;
  const Checked a = check_tensor(*cache.device, "q", q, kF32, {batch, desc.num_query_heads, desc.head_dim});
  const Checked o = check_tensor(*cache.device, "out", out, kF32, {batch, desc.num_query_heads, desc.head_dim});
  DecodeAttentionParams params{cache.view, sequences, a.rows<const float>(), nullptr, nullptr, o.rows<float>(), 0, layer, window, scale};
  if (selected != nullptr) {
    const Checked p = check_dense(*cache.device, "selected", selected, kI32, {batch, desc.num_kv_heads, -1});
    params.selected = p.ints();
    params.counts = check_dense(*cache.device, "counts", counts, kI32, {batch, desc.num_kv_heads}).ints();
    params.k = p.shape[2];
  }
  return params;
}

template <typename Body>
int32_t guard_cache(ps_cache *cache, Body &&body) {
  return cache == nullptr ? static_cast<int32_t>(PS_INVALID_ARGUMENT) : guard(cache->device, body);
}

}  // namespace

extern "C" {

int32_t ps_cache_measure(ps_device *device, const ps_cache_desc *desc, ps_cache_bytes *out) {
  return guard(device, [&] {
    check_desc(desc);
    require(out != nullptr, "No struct given to measure the cache in");
    *out = plan_cache(*desc).bytes;
  });
}

int32_t ps_cache_create(ps_device *device, const ps_cache_desc *desc, ps_cache **out) {
  return guard(device, [&] {
    check_desc(desc);
    require(out != nullptr, "No place given for the cache");
    const Plan plan = plan_cache(*desc);
    auto cache = std::make_unique<ps_cache>(ps_cache{device, {}, nullptr, plan.total});
    cache->memory = allocate(*device, plan.total);
    cache->view = view_cache(*desc, plan, cache->memory);
    *out = cache.release();
    ps_open_handles++;
  });
}

int32_t ps_cache_close(ps_cache *cache) {
  if (cache == nullptr) return PS_INVALID_ARGUMENT;
  release(*cache->device, cache->memory, cache->bytes);
  delete cache;
  ps_open_handles--;
  return PS_OK;
}

int32_t ps_append_kv(ps_cache *cache, int32_t layer, const ps_tensor *k, const ps_tensor *v, const ps_tensor *slots) {
  return guard_cache(cache, [&] {
    check_layer(*cache, layer);
    const ps_cache_desc &desc = cache->view.desc;
    const Checked s = check_tensor(*cache->device, "slots", slots, kI32, {-1});
    const Checked a = check_tensor(*cache->device, "k", k, kF32, {s.shape[0], desc.num_kv_heads, desc.head_dim});
    const Checked b = check_tensor(*cache->device, "v", v, kF32, {s.shape[0], desc.num_kv_heads, desc.head_dim});
    append_kv(*cache->device->backend, {cache->view, a.rows<const float>(), b.rows<const float>(), s.ints(), s.shape[0], layer});
  });
}

int32_t ps_page_statistics(ps_cache *cache, int32_t page, int32_t num_tokens) {
  return guard_cache(cache, [&] {
    const ps_cache_desc &desc = cache->view.desc;
    require(page >= 0 && page < desc.num_pages, "Page ", int64_t(page), " lies outside the pool");
    require(num_tokens >= 1 && num_tokens <= desc.page_size, "A page holds 1 to ", int64_t(desc.page_size), " tokens");
    page_statistics(*cache->device->backend, {cache->view, page, num_tokens});
  });
}

int32_t ps_page_score(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, const ps_tensor *q, const ps_tensor *page_table,
                      const ps_tensor *lengths, const ps_tensor *scores) {
  return guard_cache(cache, [&] {
    page_score(*cache->device->backend, check_score(*cache, layer, scorer, lambda, q, page_table, lengths, scores));
  });
}

int32_t ps_page_select(ps_cache *cache, int32_t sink_pages, int32_t recent_pages, const ps_tensor *scores, const ps_tensor *lengths,
                       const ps_tensor *selected, const ps_tensor *counts) {
  return guard_cache(cache, [&] {
    page_select(*cache->device->backend, check_select(*cache, sink_pages, recent_pages, scores, lengths, selected, counts));
  });
}

int32_t ps_page_choose(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                       const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths, const ps_tensor *scores,
                       const ps_tensor *selected, const ps_tensor *counts) {
  return guard_cache(cache, [&] {
    page_choose(*cache->device->backend, {check_score(*cache, layer, scorer, lambda, q, page_table, lengths, scores),
                                          check_select(*cache, sink_pages, recent_pages, scores, lengths, selected, counts)});
  });
}

int32_t ps_decode_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, const ps_tensor *q, const ps_tensor *page_table,
                            const ps_tensor *lengths, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  return guard_cache(cache, [&] {
    decode_attention(*cache->device->backend, check_attend(*cache, layer, scale, window, q, page_table, lengths, selected, counts, out));
  });
}

int32_t ps_sparse_attention(ps_cache *cache, int32_t layer, int32_t scorer, float lambda, int32_t sink_pages, int32_t recent_pages,
                            float scale, const ps_tensor *q, const ps_tensor *page_table, const ps_tensor *lengths,
                            const ps_tensor *scores, const ps_tensor *selected, const ps_tensor *counts, const ps_tensor *out) {
  return guard_cache(cache, [&] {
    const PageChooseParams choose{check_score(*cache, layer, scorer, lambda, q, page_table, lengths, scores),
                                  check_select(*cache, sink_pages, recent_pages, scores, lengths, selected, counts)};
    sparse_attention(*cache->device->backend,
                     {choose, check_attend(*cache, layer, scale, 0, q, page_table, lengths, selected, counts, out)});
  });
}

int32_t ps_prefill_attention(ps_cache *cache, int32_t layer, float scale, int32_t window, int32_t start, const ps_tensor *q,
                             const ps_tensor *page_table, const ps_tensor *out) {
  return guard_cache(cache, [&] {
    check_layer(*cache, layer);
    const ps_cache_desc &desc = cache->view.desc;
    require(window >= 0 && start >= 0, "window and start cannot be negative");
    const Checked a = check_tensor(*cache->device, "q", q, kF32, {-1, desc.num_query_heads, desc.head_dim});
    const Checked o = check_tensor(*cache->device, "out", out, kF32, {a.shape[0], desc.num_query_heads, desc.head_dim});
    const Checked p = check_tensor(*cache->device, "page_table", page_table, kI32, {-1});
    require(start + a.shape[0] <= p.shape[0] * desc.page_size, "The page table is too short for the last token");
    prefill_attention(*cache->device->backend, {cache->view, a.rows<const float>(), p.ints(), o.rows<float>(), a.shape[0], p.shape[0],
                                                start, layer, window, scale});
  });
}

int32_t ps_cache_read(ps_cache *cache, int32_t layer, int32_t page, int32_t field, float *out, int64_t num_floats) {
  return guard_cache(cache, [&] {
    check_layer(*cache, layer);
    require_running(*cache->device);
    const ps_cache_desc &desc = cache->view.desc;
    require(page >= 0 && page < desc.num_pages, "Page ", int64_t(page), " lies outside the pool");
    require(field >= PS_FIELD_KEYS && field <= PS_FIELD_MAX, "Unknown cache field ", int64_t(field));
    const bool kept = (field != PS_FIELD_VAR || cache->view.variance) && (field < PS_FIELD_MIN || cache->view.min);
    require(kept, "The cache does not keep this statistic");
    const int64_t width = field <= PS_FIELD_VALUES ? int64_t(desc.page_size) * desc.head_dim : field == PS_FIELD_STD ? 1 : desc.head_dim;
    require(out != nullptr && num_floats == desc.num_kv_heads * width,
            "The field takes ", int64_t(desc.num_kv_heads * width), " floats, ", int64_t(num_floats), " given");
    cache_read(*cache->device->backend, cache->view, layer, page, static_cast<ps_cache_field>(field), out);
  });
}

int32_t ps_cache_counters(ps_cache *cache, ps_counters *out) {
  return guard_cache(cache, [&] {
    require_running(*cache->device);
    require(out != nullptr, "No struct given for the counters");
    memory_read(*cache->device->backend, out, cache->view.counters, sizeof(ps_counters));
  });
}

int32_t ps_cache_reset_counters(ps_cache *cache) {
  return guard_cache(cache, [&] {
    require_running(*cache->device);
    const ps_counters zero{};
    memory_write(*cache->device->backend, cache->view.counters, &zero, sizeof(zero));
  });
}

}  // extern "C"
