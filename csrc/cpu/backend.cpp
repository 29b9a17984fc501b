/* The CPU build of csrc/backend.h: checks the index arrays (ids, slots, page tables), then runs the kernels. */
#include "../append_rotated_parts.h"
#include "../backend.h"
#include "../block_formats.h"
#include "../fused_matmul_parts.h"

#include <cstring>
#include <deque>
#include <memory>
#include <system_error>
#include <vector>

#include "isa.h"
#include "layout.h"
#include "memory.h"
#include "../numbers.h"
#include "processors.h"

namespace ps {

struct Backend {
  const Kernels &kernels;
  ThreadPool pool;
  std::deque<std::vector<char>> letters; /* reads that were started and not finished */
};

const ps_backend kBackendKind = PS_BACKEND_CPU;
const bool kKeepsGroups = false; /* scoring every page costs little on the CPU */
bool keeps_coarse(const ps_cache_desc &) { return false; }

Backend *backend_open(const ps_device_options &options) {
  if (options.index != 0) throw Error(PS_NO_DEVICE, "The CPU build has one device, number 0");
  if (options.num_threads < 0 || options.num_threads > 1024) throw Error(PS_INVALID_ARGUMENT, "num_threads must be from 0 to 1024");
  const int threads = options.num_threads > 0 ? options.num_threads : usable_processors();
  try {
    return new Backend{choose_kernels(), ThreadPool(threads), {}};
  } catch (const std::system_error &) {
    throw Error(PS_OUT_OF_MEMORY, "The system cannot start " + std::to_string(threads) + " threads; request fewer (--threads)");
  }
}

void backend_close(Backend *backend) { delete backend; }

void backend_describe(Backend &backend, ps_device_info &out) {
  const MainMemory memory = measure_memory();
  out.total_bytes = memory.total_bytes;
  out.available_bytes = memory.available_bytes;
  out.num_threads = backend.pool.size();
  std::strncpy(out.name, backend.kernels.name, sizeof out.name - 1);
}

void backend_wait(Backend &) {}

void memory_write(Backend &, void *target, const void *source, int64_t bytes) { std::memcpy(target, source, static_cast<size_t>(bytes)); }
void memory_read(Backend &, void *target, const void *source, int64_t bytes) { std::memcpy(target, source, static_cast<size_t>(bytes)); }

void memory_read_start(Backend &backend, const void *source, int64_t bytes) {
  const char *from = static_cast<const char *>(source);
  backend.letters.emplace_back(from, from + bytes);
}

void memory_read_finish(Backend &backend, void *target, int64_t bytes) {
  std::memcpy(target, backend.letters.front().data(), static_cast<size_t>(bytes));
  backend.letters.pop_front();
}

void run_on_host(Backend &backend, int64_t count, const std::function<void(int64_t)> &task) {
  backend.pool.parallel_for(count, [&](int64_t index, int) { task(index); });
}

void memory_write_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows) {
  for (int64_t row = 0; row < rows; row++) {
    memory_write(backend, static_cast<char *>(target) + row * target_pitch, static_cast<const char *>(source) + row * source_pitch, width);
  }
}

void memory_read_rows(Backend &backend, void *target, int64_t target_pitch, const void *source, int64_t source_pitch, int64_t width, int64_t rows) {
  memory_write_rows(backend, target, target_pitch, source, source_pitch, width, rows);
}

namespace {

void check_indices(const char *name, const int32_t *indices, int64_t count, int64_t limit) {
  bool wrong = false; /* no branch in the loop: page tables are long and checked at every operation */
  for (int64_t i = 0; i < count; i++) wrong |= static_cast<uint32_t>(indices[i]) >= static_cast<uint64_t>(limit);
  for (int64_t i = 0; wrong && i < count; i++) {
    if (indices[i] < 0 || indices[i] >= limit) {
      throw Error(PS_INVALID_ARGUMENT, std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(indices[i]) + ", expected 0 to " +
                                           std::to_string(limit - 1));
    }
  }
}

void check_sequences(const CacheView &cache, const SequencesView &view) {
  for (int64_t b = 0; b < view.sequences; b++) {
    const int64_t pages = (int64_t(view.lengths[b]) + cache.desc.page_size - 1) / cache.desc.page_size;
    if (view.lengths[b] < 1 || pages > view.max_pages) {
      throw Error(PS_INVALID_ARGUMENT, "lengths[" + std::to_string(b) + "] is " + std::to_string(view.lengths[b]) + ", expected 1 to " +
                                           std::to_string(view.max_pages * cache.desc.page_size) + " tokens");
    }
    if (view.page_table) check_indices("page_table", view.page_table + b * view.table_stride, pages, cache.desc.num_pages);
  }
}

void check_selection(const DecodeAttentionParams &p) {
  const int64_t heads = p.cache.desc.num_kv_heads;
  for (int64_t row = 0; row < p.sequences.sequences * heads; row++) {
    const int64_t pages = (int64_t(p.sequences.lengths[row / heads]) + p.cache.desc.page_size - 1) / p.cache.desc.page_size;
    if (p.counts[row] < 1 || p.counts[row] > p.k) throw Error(PS_INVALID_ARGUMENT, "counts contains a number outside [1, k]");
    check_indices("selected", p.selected + row * p.k, p.counts[row], pages);
  }
}

}  // namespace

void weight_write_blocks(Backend &backend, const WeightWriteParams &params) { backend.kernels.weight_write(backend.pool, params); }

void embedding(Backend &backend, const EmbeddingParams &params) {
  check_indices("ids", params.ids, params.tokens, params.vocabulary);
  backend.kernels.embedding(backend.pool, params);
}

void graph_begin(Backend &) { throw Error(PS_UNSUPPORTED, "The CPU build cannot record operations"); }
void *graph_end(Backend &) { return nullptr; }
void graph_launch(Backend &, void *) {}
void graph_close(Backend &, void *) {}

void scan(Backend &backend, const ScanParams &params) { backend.kernels.scan(backend.pool, params); }
void rms_norm(Backend &backend, const RmsNormParams &params) { backend.kernels.rms_norm(backend.pool, params); }
void add_rms_norm(Backend &backend, const AddRmsNormParams &params) {
  backend.kernels.add(backend.pool, {params.x, params.y, params.norm.tokens, params.norm.width});
  backend.kernels.rms_norm(backend.pool, params.norm);
}
void rope_table(Backend &backend, const RopeTableParams &params) { backend.kernels.rope_table(backend.pool, params); }
void rope(Backend &backend, const RopeParams &params) { backend.kernels.rope(backend.pool, params); }
void silu_mul(Backend &backend, const GatedParams &params) { backend.kernels.silu_mul(backend.pool, params); }
void gelu_mul(Backend &backend, const GatedParams &params) { backend.kernels.gelu_mul(backend.pool, params); }
void scale(Backend &backend, const ScaleParams &params) { backend.kernels.scale(backend.pool, params); }
void matmul(Backend &backend, const MatmulParams &params) {
  const bool blocks = is_block_format(params.weight.dtype);
  (blocks ? backend.kernels.matmul_quantized : backend.kernels.matmul)(backend.pool, params);
}
void fused_matmul(Backend &backend, const FusedMatmulParams &params) { fused_matmul_parts(backend, params); }
void add(Backend &backend, const AddParams &params) { backend.kernels.add(backend.pool, params); }
void argmax(Backend &backend, const ArgmaxParams &params) { backend.kernels.argmax(backend.pool, params); }
void sample(Backend &backend, const SampleParams &params) { backend.kernels.sample(backend.pool, params); }
void route_experts(Backend &backend, const RouteExpertsParams &params) { backend.kernels.route_experts(backend.pool, params); }

void scatter_add(Backend &backend, const ScatterAddParams &params) {
  check_indices("rows", params.rows, params.count, params.tokens);
  backend.kernels.scatter_add(backend.pool, params);
}

int64_t cache_scratch_bytes(const ps_cache_desc &desc) {
  if (desc.statistics & PS_STATISTICS_F8) throw Error(PS_UNSUPPORTED, "The CPU build does not support 8-bit means");
  return int64_t(desc.max_sequences) * desc.num_query_heads * kMaxSplits * (desc.head_dim + 2) * int64_t(sizeof(float));
}

void append_rotated(Backend &backend, const AppendRotatedParams &params) { append_rotated_parts(backend, params); }
void append_kv(Backend &backend, const AppendKvParams &params) {
  check_indices("slots", params.slots, params.tokens, params.cache.desc.num_pages * params.cache.desc.page_size);
  backend.kernels.append_kv(backend.pool, params);
}

void page_statistics(Backend &backend, const PageStatisticsParams &params) { backend.kernels.page_statistics(backend.pool, params); }

void page_score(Backend &backend, const PageScoreParams &params) {
  check_sequences(params.cache, params.sequences);
  backend.kernels.page_score(backend.pool, params);
}

void page_select(Backend &backend, const PageSelectParams &params) {
  check_sequences(params.cache, params.sequences);
  backend.kernels.page_select(backend.pool, params);
}

void page_choose(Backend &backend, const PageChooseParams &params) {
  page_score(backend, params.score);
  page_select(backend, params.select);
}

void decode_attention(Backend &backend, const DecodeAttentionParams &params) {
  check_sequences(params.cache, params.sequences);
  if (params.selected) check_selection(params);
  backend.kernels.decode_attention(backend.pool, params);
}

void append_attend(Backend &backend, const AppendRotatedParams &append, const DecodeAttentionParams &attend) {
  append_rotated(backend, append);
  decode_attention(backend, attend);
}

void page_mass(Backend &backend, const PageMassParams &params) {
  check_sequences(params.cache, params.sequences);
  backend.kernels.page_mass(backend.pool, params);
}

void sparse_attention(Backend &backend, const SparseAttentionParams &params) {
  page_choose(backend, params.choose);
  decode_attention(backend, params.attend);
}

void append_sparse_attention(Backend &backend, const AppendRotatedParams &append, const SparseAttentionParams &attend) {
  append_rotated(backend, append);
  sparse_attention(backend, attend);
}

namespace {

void check_prompt_pages(const CacheView &cache, const int32_t *page_table, int64_t tokens) {
  check_indices("page_table", page_table, (tokens + cache.desc.page_size - 1) / cache.desc.page_size, cache.desc.num_pages);
}

/* Pages from a tile's own on are no choice: they would count twice, or show a token what comes after it. */
void check_tile_selection(const PrefillAttentionParams &p) {
  const int64_t heads = p.cache.desc.num_kv_heads;
  const PrefillTiles tiles = p.tiles();
  for (int64_t row = 0; row < tiles.count() * heads; row++) {
    if (p.counts[row] < 0 || p.counts[row] > p.k) throw Error(PS_INVALID_ARGUMENT, "counts contains a number outside [0, k]");
    check_indices("selected", p.selected + row * p.k, p.counts[row], (p.start + tiles.first(row / heads)) / p.cache.desc.page_size);
  }
}

}  // namespace

void prefill_choose(Backend &backend, const PrefillChooseParams &params) {
  check_prompt_pages(params.cache, params.page_table, params.tiles.start + params.tiles.tokens);
  backend.kernels.prefill_choose(backend.pool, params);
}

void prefill_attention(Backend &backend, const PrefillAttentionParams &params) {
  check_prompt_pages(params.cache, params.page_table, params.start + params.tokens);
  if (params.selected) check_tile_selection(params);
  backend.kernels.prefill_attention(backend.pool, params);
}

namespace {

/* One page of keys or values. */
template <typename T>
void read_tokens(const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out) {
  const Layout layout(cache.desc);
  const bool keys = field == PS_FIELD_KEYS;
  const T *pool = static_cast<const T *>(keys ? cache.keys : cache.values);
  const float *scales = keys ? cache.key_scale : cache.value_scale;
  for (int64_t head = 0; head < layout.heads; head++) {
    for (int64_t place = 0; place < layout.page_size; place++) {
      const float scale = scales ? scales[layout.token(layer, head, page) + place] : 1.f;
      for (int64_t i = 0; i < layout.head_dim; i++) {
        *out++ = to_float(pool[layout.tokens(layer, head, page) + (keys ? layout.key(place, i) : layout.value(place, i))]) * scale;
      }
    }
  }
}

template <typename T>
void read_statistic(const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out) {
  const Layout layout(cache.desc);
  const void *const pools[] = {nullptr, nullptr, cache.mean, nullptr, cache.variance, cache.min, cache.max};
  const T *pool = static_cast<const T *>(pools[field]);
  for (int64_t head = 0; head < layout.heads; head++) {
    for (int64_t i = 0; i < layout.head_dim; i++) *out++ = to_float(pool[layout.vector(layer, head, page) + i]);
  }
}

template <typename T>
void read_field(const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out) {
  if (field > PS_FIELD_VALUES) read_statistic<T>(cache, layer, page, field, out);
  else if (cache.desc.kv_type == PS_KV_Q8) read_tokens<q8>(cache, layer, page, field, out);
  else if (cache.desc.kv_type == PS_KV_FP8) read_tokens<fp8>(cache, layer, page, field, out);
  else read_tokens<T>(cache, layer, page, field, out);
}

}  // namespace

void cache_read(Backend &, const CacheView &cache, int32_t layer, int32_t page, ps_cache_field field, float *out) {
  if (field == PS_FIELD_STD) {
    for (int64_t head = 0; head < cache.desc.num_kv_heads; head++) out[head] = cache.std[Layout(cache.desc).page(layer, head, page)];
  } else if (cache.desc.dtype == PS_F32) {
    read_field<float>(cache, layer, page, field, out);
  } else if (cache.desc.dtype == PS_F16) {
    read_field<f16>(cache, layer, page, field, out);
  } else {
    read_field<bf16>(cache, layer, page, field, out);
  }
}

}  // namespace ps
