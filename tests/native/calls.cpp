#include "calls.h"

#include "../../csrc/block_formats.h"

#include <cmath>
#include <cstdio>

namespace {

constexpr int64_t kBufferBytes = 96 * 1024;
constexpr int64_t kLargeBytes = 1 << 20; /* larger buffers are made and closed, but not filled */
constexpr size_t kBuffers = 8, kCaches = 4;

}  // namespace

int64_t Bytes::edge() {
  static const int64_t kEdges[] = {0,
                                   -1,
                                   1,
                                   2,
                                   7,
                                   8,
                                   9,
                                   15,
                                   16,
                                   17,
                                   63,
                                   64,
                                   65,
                                   255,
                                   4095,
                                   INT32_MAX,
                                   INT32_MIN,
                                   int64_t(INT32_MAX) + 1,
                                   int64_t(1) << 45,
                                   int64_t(1) << 46,
                                   int64_t(1) << 53,
                                   INT64_MAX,
                                   INT64_MIN,
                                   -8,
                                   3};
  return kEdges[byte() % (sizeof kEdges / sizeof *kEdges)];
}

float Bytes::number() {
  static const float kNumbers[] = {0, 1, -1, 0.5f, 1e-6f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 1e-45f, 3e38f};
  return seldom() ? kNumbers[byte() % 12] : float(byte()) / 64 - 1;
}

Calls::Calls(Bytes &bytes) : bytes_(bytes) {
  for (int i = 0; i < 2; i++) {
    const ps_device_options options[] = {{0, 2}, {1, 1}};
    char message[64];
    MUST(i == 0 ? ps_device_open(options, &devices_[i], message, sizeof message) == PS_OK
                : ps_group_open(options, 2, &devices_[i], message, sizeof message) == PS_OK);
    MUST(ps_buffer_create(devices_[i], 64, &anchors_[i]) == PS_OK);
  }
  while (buffers_.size() < kBuffers) make_buffer();
  make_cache();
}

Calls::~Calls() {
  for (ps_cache *cache : caches_) ps_cache_close(cache);
  for (ps_buffer *buffer : buffers_) ps_buffer_close(buffer);
  for (ps_buffer *anchor : anchors_) MUST(ps_buffer_close(anchor) == PS_OK);
  for (ps_device *device : devices_) {
    MUST(ps_device_close(device) == PS_OK);
    MUST(ps_device_close(device) == PS_INVALID_ARGUMENT);
  }
  MUST(ps_live_handles() == 0);
}

void Calls::check(int32_t status) {
  MUST(status >= PS_OK && status < PS_DEVICE_ERROR);
  (status == PS_OK ? accepted : refused)++;
}

void Calls::make_buffer() {
  ps_buffer *made = nullptr;
  const int64_t bytes = bytes_.seldom() ? bytes_.edge() : kBufferBytes;
  const int32_t status = ps_buffer_create(devices_[bytes_.seldom() ? 1 : 0], bytes, &made);
  if (status != PS_OK) return check(status);
  if (bytes > kLargeBytes) return check(ps_buffer_close(made));
  fill(made, bytes);
  if (buffers_.size() < kBuffers) return buffers_.push_back(made);
  ps_buffer *&place = buffers_[size_t(bytes_.below(int(kBuffers)))];
  ps_buffer_close(place);
  place = made;
}

/* Small whole numbers, floats, or words that are wild as either. */
void Calls::fill(ps_buffer *buffer, int64_t bytes) {
  static const int32_t kWild[] = {0, -1, 1, 8, 63, 64, INT32_MAX, INT32_MIN, 0x7f800000, 0x7fc00000, 3, 2};
  const int kind = bytes_.below(7) / 2, start = bytes_.byte();
  std::vector<int32_t> words(size_t(bytes) / 4);
  for (size_t i = 0; i < words.size(); i++) {
    const float value = float(int(i * 37 % 101) - 50) / 25;
    words[i] = kind == 0 ? int32_t(i % 8 + 1) : kind == 1 ? int32_t(i) % 8 : kWild[(i * 7 + size_t(start)) % 12];
    if (kind == 2) std::memcpy(&words[i], &value, 4);
  }
  check(ps_buffer_write(buffer, 0, words.data(), int64_t(words.size()) * 4));
}

/* Mostly small; now and then every field as large as it may be, or close to it. */
ps_cache_desc Calls::describe_cache() {
  static const int32_t kPageSizes[] = {8, 16, 32, 64}, kHeads[] = {1, 2, 4};
  const int32_t heads = kHeads[bytes_.below(2)];
  ps_cache_desc desc{};
  desc.num_pages = bytes_.mostly(8 + 8 * bytes_.below(3));
  desc.max_pages_per_sequence = bytes_.mostly(8);
  desc.num_layers = int32_t(bytes_.mostly(2));
  desc.num_kv_heads = int32_t(bytes_.mostly(heads));
  desc.num_query_heads = int32_t(bytes_.mostly(heads * kHeads[bytes_.below(3)]));
  desc.head_dim = int32_t(bytes_.mostly(16 + 16 * bytes_.below(4)));
  desc.page_size = int32_t(bytes_.mostly(kPageSizes[bytes_.below(4)]));
  desc.dtype = int32_t(bytes_.mostly(bytes_.below(3)));
  desc.statistics = int32_t(bytes_.mostly(3));
  desc.max_sequences = int32_t(bytes_.mostly(4));
  desc.group_pages = int32_t(bytes_.mostly(8 * bytes_.below(2)));
  desc.kv_type = int32_t(bytes_.mostly(bytes_.below(3)));
  if (!bytes_.seldom()) return desc;
  desc.page_size = kPageSizes[bytes_.below(4)];
  desc.num_pages = (INT32_MAX / desc.page_size / 8 * 8) >> bytes_.below(9);
  desc.max_pages_per_sequence = desc.num_pages;
  desc.num_layers = desc.num_query_heads = desc.num_kv_heads = 4096 >> bytes_.below(6);
  desc.head_dim = 512;
  desc.max_sequences = 65536;
  return desc;
}

void Calls::make_cache() {
  const ps_cache_desc desc = describe_cache();
  ps_cache_bytes measured{};
  const int32_t status = ps_cache_measure(devices_[0], &desc, &measured);
  check(status);
  ps_cache *made = nullptr;
  const int32_t made_status = ps_cache_create(devices_[0], &desc, &made);
  check(made_status);
  MUST((made_status == PS_OK) == (made != nullptr));
  MUST(status == PS_OK || made == nullptr);
  if (status != PS_OK) return;
  const double rows = double(desc.num_layers) * desc.num_kv_heads * double(desc.num_pages);
  const int bytes = desc.kv_type != PS_KV_DTYPE ? 2 : desc.dtype == PS_F32 ? 8 : 4; /* of a key and a value */
  MUST(double(measured.kv) >= rows * desc.page_size * desc.head_dim * bytes); /* as a sum that cannot wrap */
  MUST(measured.statistics > 0 && measured.scratch > 0);
  if (made == nullptr) return;
  if (measured.kv > 64 * kLargeBytes || measured.statistics > 64 * kLargeBytes || measured.scratch > 64 * kLargeBytes) {
    return check(ps_cache_close(made));
  }
  const size_t place = caches_.size() < kCaches ? caches_.size() : size_t(bytes_.below(int(kCaches)));
  if (place < caches_.size()) ps_cache_close(caches_[place]);
  caches_.resize(place < caches_.size() ? caches_.size() : place + 1);
  descs_.resize(caches_.size());
  caches_[place] = made;
  descs_[place] = desc;
}

/* A tensor of the requested shape; now and then with one field of any value, or none at all. */
ps_tensor *Calls::tensor(int32_t dtype, std::initializer_list<int64_t> shape) {
  if (bytes_.seldom()) return nullptr;
  ps_tensor &t = tensors_[used_++ % 16];
  t = ps_tensor{buffer(), 0, 1, {1, 1, 1}, int32_t(shape.size()), dtype};
  int i = 0;
  for (int64_t size : shape) t.shape[i++] = size;
  t.row_stride = int64_t(uint64_t(t.shape[1]) * uint64_t(t.shape[2]));
  if (bytes_.below(3) == 0) t.offset_bytes = 4096 * bytes_.below(16);
  if (!bytes_.seldom()) return &t;
  switch (bytes_.below(7)) {
    case 0: t.offset_bytes = bytes_.edge(); break;
    case 1: t.row_stride = bytes_.edge(); break;
    case 2: t.rank = int32_t(bytes_.edge()); break;
    case 3: t.dtype = int32_t(bytes_.edge()); break;
    default: t.shape[bytes_.below(3)] = bytes_.edge();
  }
  return &t;
}

void Calls::one() {
  const int which = bytes_.below(51);
  used_ = 0;
  if (bytes_.seldom()) bytes_.below(2) ? on_devices() : on_missing();
  else if (which < 10) on_handles(which);
  else if (which < 31) on_tensors(which - 10);
  else on_cache(which - 31);
}

void Calls::on_handles(int which) {
  uint32_t word = 0;
  char text[600];
  std::memset(text, 'x', sizeof text);
  ps_device_info info;
  switch (which) {
    case 0: return make_buffer();
    case 1: return make_cache();
    case 2: return bytes_.below(8) ? make_buffer() : check(ps_buffer_close(buffer())); /* what is closed stays in use for a while */
    case 3: return bytes_.below(8) ? make_cache() : check(ps_cache_close(cache()));
    case 4: return check(ps_buffer_write(buffer(), bytes_.mostly(8), bytes_.seldom() ? nullptr : text, bytes_.seldom() ? -1 : bytes_.below(100)));
    case 5: return check(ps_buffer_read(buffer(), bytes_.mostly(8), bytes_.seldom() ? nullptr : text, bytes_.below(100)));
    case 6:
      if (bytes_.below(2)) return check(ps_buffer_scan(buffer(), bytes_.seldom() ? nullptr : &word));
      check(ps_read_start(buffer(), bytes_.mostly(8), bytes_.seldom() ? bytes_.edge() : 4));
      return check(ps_read_finish(device(), bytes_.seldom() ? nullptr : text, bytes_.seldom() ? bytes_.edge() : 4));
    case 7: return check(ps_error_message(bytes_.seldom() ? nullptr : text, int32_t(bytes_.below(120)) - 3));
    case 8: return check(ps_device_describe(device(), bytes_.seldom() ? nullptr : &info));
    default:
      check(ps_device_wait(device(), bytes_.seldom() ? nullptr : text, int32_t(bytes_.below(120)) - 3));
      check(ps_graph_begin(device()));
      check(ps_graph_launch(nullptr));
      check(ps_graph_close(nullptr));
      ps_graph *graph = nullptr;
      check(ps_graph_end(device(), &graph));
      MUST(ps_struct_bytes(int32_t(bytes_.edge())) >= -1);
      MUST(ps_device_close(devices_[0]) == PS_INVALID_ARGUMENT); /* it has children */
  }
}

/* A device of any options, which lives for one call; its message must end inside the place that it was given. */
void Calls::on_devices() {
  const ps_device_options options{int32_t(bytes_.mostly(0)), int32_t(bytes_.mostly(1))};
  char message[64];
  std::memset(message, 'x', sizeof message);
  const int32_t room = int32_t(bytes_.mostly(bytes_.below(40)));
  const int32_t given = room > 40 ? 40 : room;
  ps_device *made = nullptr;
  const int32_t status = ps_device_open(bytes_.seldom() ? nullptr : &options, bytes_.seldom() ? nullptr : &made, message, given);
  MUST(status != PS_DEVICE_ERROR && (made == nullptr || status == PS_OK));
  for (size_t i = given > 0 ? size_t(given) : 0; i < sizeof message; i++) MUST(message[i] == 'x');
  status == PS_OK ? accepted++ : refused++;
  if (made == nullptr) return;
  ps_buffer *buffer = nullptr;
  check(ps_buffer_create(made, bytes_.mostly(64), &buffer));
  if (buffer != nullptr) MUST(ps_device_close(made) == PS_INVALID_ARGUMENT && ps_buffer_close(buffer) == PS_OK);
  check(ps_device_close(made));
  MUST(ps_device_wait(made, nullptr, 0) == PS_INVALID_ARGUMENT && ps_buffer_create(made, 64, &buffer) == PS_INVALID_ARGUMENT);
}

/* Calls that lack what they are to read or write. */
void Calls::on_missing() {
  const ps_cache_desc desc{};
  ps_cache_bytes measured;
  ps_cache *c = nullptr;
  for (const int32_t status :
       {ps_buffer_create(devices_[0], 64, nullptr), ps_cache_measure(devices_[0], nullptr, &measured), ps_cache_measure(devices_[0], &desc, nullptr),
        ps_cache_create(devices_[0], nullptr, &c), ps_cache_create(devices_[0], &desc, nullptr), ps_graph_end(devices_[0], nullptr),
        ps_device_close(nullptr), ps_device_wait(nullptr, nullptr, 0), ps_buffer_close(nullptr), ps_cache_close(nullptr),
        ps_cache_reset_counters(nullptr), ps_page_statistics(nullptr, 0, 1), ps_buffer_write(nullptr, 0, "", 1)}) {
    check(status);
    MUST(status == PS_INVALID_ARGUMENT);
  }
}

void Calls::on_tensors(int which) {
  ps_device *d = device();
  const int64_t rows = 1 + bytes_.below(6), width = 1 + bytes_.below(80), other = 1 + bytes_.below(40);
  const int32_t weights = bytes_.below(3);
  const auto plain = [&] { return tensor(PS_F32, {rows, width}); };
  const auto heads = [&] { return tensor(PS_F32, {rows, other, width}); };
  switch (which) {
    case 0: return check(ps_embedding(d, tensor(PS_I32, {rows}), tensor(weights, {other, width}), plain()));
    case 1: return check(ps_rms_norm(d, heads(), tensor(weights, {width}), bytes_.number(), heads()));
    case 2: return check(ps_add_rms_norm(d, plain(), plain(), tensor(weights, {width}), bytes_.number(), plain()));
    case 3:
      return check(ps_rope_table(d, tensor(PS_I32, {rows}), tensor(PS_F32, {other}), bytes_.number(), bytes_.number(), int32_t(bytes_.mostly(4096)),
                                 tensor(PS_F32, {rows, 2 * other})));
    case 4: return check(ps_rope(d, tensor(PS_F32, {rows, other, 2 * width}), tensor(PS_F32, {rows, bytes_.mostly(2 * width)})));
    case 5: return check(ps_silu_mul(d, plain(), plain(), plain()));
    case 6:
      return check(ps_matmul(d, plain(), tensor(weights, {other, width}), bytes_.below(2) ? nullptr : tensor(weights, {other}),
                             tensor(PS_F32, {rows, other})));
    case 7: return check(ps_add(d, plain(), plain()));
    case 19: {
      const int32_t ending = int32_t(bytes_.mostly(bytes_.below(4)));
      const bool normed = bytes_.below(2), gated = ending == PS_SILU_MUL || ending == PS_GELU_MUL;
      const int64_t outputs = gated ? 2 * other : other;
      const bool followed = bytes_.below(ending == PS_ADD ? 2 : 8) == 1;
      return check(ps_fused_matmul(d, plain(), normed ? tensor(bytes_.below(3), {width}) : nullptr, bytes_.number(),
                                   tensor(weights, {outputs, width}), bytes_.below(2) ? nullptr : tensor(weights, {outputs}), ending,
                                   normed ? plain() : nullptr, ending == PS_STORE ? nullptr : tensor(PS_F32, {rows, outputs}),
                                   tensor(PS_F32, {rows, other}), followed ? tensor(bytes_.below(3), {outputs}) : nullptr,
                                   followed ? tensor(PS_F32, {rows, outputs}) : nullptr));
    }
    case 8: return check(ps_argmax(d, plain(), tensor(PS_I32, {rows})));
    case 9: return check(ps_sample(d, plain(), tensor(PS_F32, {rows, 4}), tensor(PS_F32, {rows}), tensor(PS_I32, {rows})));
    case 10: {
      const int64_t chosen = bytes_.mostly(1 + width / 4);
      return check(ps_route_experts(d, plain(), bytes_.below(2), tensor(PS_I32, {rows, chosen}), tensor(PS_F32, {rows, chosen})));
    }
    case 11: return check(ps_gelu_mul(d, plain(), plain(), plain()));
    case 13: return write_weight(d, other);
    case 12: return check(ps_scale(d, plain(), bytes_.number()));
    case 14: return check(ps_group_only(d, int32_t(bytes_.mostly(bytes_.below(3) - 1))));
    case 15: return check(ps_all_reduce(d, plain()));
    case 16: return check(ps_all_gather(d, plain(), tensor(PS_F32, {rows, bytes_.mostly(2 * width)})));
    case 17: return check(ps_all_reduce_start(d, plain()));
    case 18: return check(ps_all_reduce_finish(d, plain()));
    default: return check(ps_scatter_add(d, plain(), tensor(PS_I32, {rows}), tensor(PS_F32, {rows}), tensor(PS_F32, {other, width})));
  }
}

/* Rows of any two dtypes, often in blocks, then a product or rows that read them. */
void Calls::write_weight(ps_device *d, int64_t rows) {
  static const char source[1 << 18] = {};
  const int64_t width = 256 * (1 + bytes_.below(2)), first = bytes_.below(int(rows)), count = 1 + bytes_.below(int(rows - first));
  const int32_t dtype = bytes_.below(ps::kDtypes), from = bytes_.below(2) ? dtype : bytes_.below(ps::kDtypes);
  const int64_t bytes = count * ps::bytes_of_numbers(from, width);
  if (bytes > int64_t(sizeof source)) return;
  check(ps_weight_write(d, tensor(dtype, {rows, width}), bytes_.seldom() ? bytes_.edge() : first, bytes_.seldom() ? bytes_.edge() : count,
                        bytes_.seldom() ? int32_t(bytes_.edge()) : from, bytes_.seldom() ? nullptr : source,
                        bytes_.seldom() ? bytes_.below(int(bytes)) : bytes));
  const int64_t tokens = 1 + bytes_.below(12);
  if (bytes_.below(2)) check(ps_embedding(d, tensor(PS_I32, {tokens}), tensor(dtype, {rows, width}), tensor(PS_F32, {tokens, width})));
  else if (bytes_.below(2))
    check(ps_matmul(d, tensor(PS_F32, {tokens, width}), tensor(dtype, {rows, width}), nullptr, tensor(PS_F32, {tokens, rows})));
  else
    check(ps_fused_matmul(d, tensor(PS_F32, {1, width}), tensor(PS_F32, {width}), 1e-6f, tensor(dtype, {rows, width}), nullptr, PS_ADD,
                          tensor(PS_F32, {1, width}), tensor(PS_F32, {1, rows}), tensor(PS_F32, {1, rows}), nullptr, nullptr));
}

void Calls::on_cache(int which) {
  ps_cache *c = cache();
  ps_cache_desc d{};
  for (size_t i = 0; i < caches_.size(); i++) {
    if (caches_[i] == c) d = descs_[i];
  }
  const int32_t layer = int32_t(bytes_.mostly(bytes_.below(2)));
  return which < 8 ? append(which, c, d, layer) : attend(which - 8, c, d, layer);
}

void Calls::append(int which, ps_cache *c, const ps_cache_desc &d, int32_t layer) {
  const int64_t rows = 1 + bytes_.below(4), heads = d.num_kv_heads, width = d.head_dim, size = d.page_size;
  const auto keys = [&] { return tensor(PS_F32, {rows, heads, width}); };
  ps_counters counters;
  float floats[8192];
  switch (which) {
    case 0: {
      const bool norms = bytes_.below(2);
      const int64_t rotated = bytes_.mostly(width);
      const ps_tensor *qn = norms ? tensor(PS_F32, {width}) : nullptr, *kn = norms ? tensor(PS_F32, {width}) : nullptr;
      const ps_tensor *qt = tensor(PS_F32, {rows, rotated}), *kt = tensor(PS_F32, {rows, rotated});
      const ps_tensor *q = tensor(PS_F32, {rows, d.num_query_heads, width});
      const ps_tensor *k = keys(), *v = keys(), *slots = tensor(PS_I32, {rows});
      const float eps = bytes_.number();
      const int then = bytes_.below(3);
      if (then == 0) return check(ps_append_rotated(c, layer, eps, qn, kn, qt, kt, q, k, v, slots));
      const int64_t pages = 1 + bytes_.below(8);
      const ps_tensor *table = tensor(PS_I32, {rows, pages}), *lengths = tensor(PS_I32, {rows});
      const ps_tensor *out = tensor(PS_F32, {rows, d.num_query_heads, width});
      const float scale = bytes_.number();
      if (then == 1) {
        return check(ps_append_attend(c, layer, eps, qn, kn, qt, kt, q, k, v, slots, scale, int32_t(bytes_.mostly(0)), table, lengths, out));
      }
      const int64_t most = bytes_.mostly(1 + bytes_.below(4));
      const int32_t scorer = int32_t(bytes_.mostly(bytes_.below(4))), sink = int32_t(bytes_.mostly(1)), recent = int32_t(bytes_.mostly(2));
      const ps_tensor *scores = tensor(PS_F32, {rows, heads, pages}), *selected = tensor(PS_I32, {rows, heads, most});
      return check(ps_append_sparse_attention(c, layer, eps, qn, kn, qt, kt, q, k, v, slots, scorer, bytes_.number(), sink, recent, scale, table,
                                              lengths, scores, selected, tensor(PS_I32, {rows, heads}), out));
    }
    case 1: return check(ps_page_statistics(c, int32_t(bytes_.mostly(bytes_.below(8))), int32_t(bytes_.mostly(1 + bytes_.below(8)))));
    case 2: {
      const int64_t counts[] = {heads * size * width, heads * size * width, heads * width, heads, heads * width, heads * width, heads * width};
      const int field = bytes_.below(7);
      const int64_t count = counts[field] <= 8192 ? counts[field] : 0;
      return check(
          ps_cache_read(c, layer, int32_t(bytes_.mostly(bytes_.below(8))), int32_t(bytes_.mostly(field)), bytes_.seldom() ? nullptr : floats, count));
    }
    case 3: return check(ps_cache_counters(c, bytes_.seldom() ? nullptr : &counters));
    case 4: return check(ps_cache_reset_counters(c));
    case 5: return transfer(c, d);
    default: return check(ps_append_kv(c, layer, keys(), keys(), tensor(PS_I32, {rows})));
  }
}

/* Some pages, often none or out of range, to and from memory of their size. */
void Calls::transfer(ps_cache *c, const ps_cache_desc &d) {
  ps_cache_bytes sizes{};
  if (c == nullptr || ps_cache_measure(devices_[0], &d, &sizes) != PS_OK) return;
  const int64_t count = bytes_.below(4);
  const int32_t pages[] = {int32_t(bytes_.mostly(bytes_.below(8))), int32_t(bytes_.mostly(bytes_.below(8))), int32_t(bytes_.mostly(0))};
  std::vector<char> memory(size_t(count * sizes.unit));
  const int64_t bytes = bytes_.seldom() ? bytes_.below(99) : int64_t(memory.size());
  check(ps_cache_export(c, pages, count, bytes_.seldom() ? nullptr : memory.data(), bytes));
  check(ps_cache_import(c, bytes_.seldom() ? nullptr : pages, count, memory.data(), bytes));
}

void Calls::attend(int which, ps_cache *c, const ps_cache_desc &d, int32_t layer) {
  const int64_t b = 1 + bytes_.below(3), m = bytes_.mostly(1 + bytes_.below(8)), heads = d.num_kv_heads, k = bytes_.mostly(1 + bytes_.below(4));
  const int32_t scorer = int32_t(bytes_.mostly(bytes_.below(4))), window = int32_t(bytes_.below(3) ? 0 : bytes_.mostly(5));
  const int32_t sink = int32_t(bytes_.mostly(1)), recent = int32_t(bytes_.mostly(2));
  const float lambda = bytes_.number(), scale = bytes_.number();
  const ps_tensor *q = tensor(PS_F32, {b, d.num_query_heads, d.head_dim}), *table = tensor(PS_I32, {b, m}), *lengths = tensor(PS_I32, {b});
  const ps_tensor *scores = tensor(PS_F32, {b, heads, m}), *selected = tensor(PS_I32, {b, heads, k}), *counts = tensor(PS_I32, {b, heads});
  const ps_tensor *out = tensor(PS_F32, {b, d.num_query_heads, d.head_dim});
  switch (which) {
    case 0: return check(ps_page_score(c, layer, scorer, lambda, q, table, lengths, scores));
    case 1: return check(ps_page_select(c, sink, recent, scores, lengths, selected, counts));
    case 2: return check(ps_page_choose(c, layer, scorer, lambda, sink, recent, q, table, lengths, scores, selected, counts));
    case 3: return check(ps_decode_attention(c, layer, scale, window, q, table, lengths, nullptr, nullptr, out));
    case 4: return check(ps_decode_attention(c, layer, scale, 0, q, table, lengths, selected, counts, out));
    case 5:
    case 6: return check(ps_sparse_attention(c, layer, scorer, lambda, sink, recent, scale, q, table, lengths, scores, selected, counts, out));
    case 7: return check(ps_page_mass(c, layer, scale, window, q, table, lengths, tensor(PS_F32, {b, d.num_query_heads, m})));
    default: {
      const int64_t tokens = 1 + bytes_.below(20);
      const ps_tensor *queries = tensor(PS_F32, {tokens, d.num_query_heads, d.head_dim}), *pages = tensor(PS_I32, {m});
      const ps_tensor *answers = tensor(PS_F32, {tokens, d.num_query_heads, d.head_dim});
      const int32_t start = int32_t(bytes_.mostly(bytes_.below(30))), tile = int32_t(bytes_.mostly(1 + bytes_.below(20)));
      if (which < 10) return check(ps_prefill_attention(c, layer, scale, window, start, queries, pages, answers));
      const int64_t tiles = tile > 0 ? (start + tokens - 1) / tile - start / tile + 1 : 1;
      const ps_tensor *chosen = tensor(PS_I32, {tiles, heads, k}), *numbers = tensor(PS_I32, {tiles, heads});
      if (which == 10) return check(ps_sparse_prefill_attention(c, layer, scale, start, tile, queries, pages, chosen, numbers, answers));
      return check(ps_prefill_choose(c, layer, scorer, lambda, sink, recent, scale, start, tile, queries, pages, chosen, numbers));
    }
  }
}
