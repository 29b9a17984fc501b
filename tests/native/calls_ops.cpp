#include "calls.h"

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
    case 6: return check(ps_buffer_scan(buffer(), bytes_.seldom() ? nullptr : &word));
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
    case 8: return check(ps_argmax(d, plain(), tensor(PS_I32, {rows})));
    case 9: return check(ps_sample(d, plain(), tensor(PS_F32, {rows, 4}), tensor(PS_F32, {rows}), tensor(PS_I32, {rows})));
    case 10: {
      const int64_t chosen = bytes_.mostly(1 + width / 4);
      return check(ps_route_experts(d, plain(), bytes_.below(2), tensor(PS_I32, {rows, chosen}), tensor(PS_F32, {rows, chosen})));
    }
    default: return check(ps_scatter_add(d, plain(), tensor(PS_I32, {rows}), tensor(PS_F32, {rows}), tensor(PS_F32, {other, width})));
  }
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
      return check(ps_append_rotated(c, layer, bytes_.number(), qn, kn, qt, kt, q, keys(), keys(), tensor(PS_I32, {rows})));
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
    default: return check(ps_append_kv(c, layer, keys(), keys(), tensor(PS_I32, {rows})));
  }
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
      return check(ps_prefill_attention(c, layer, scale, window, int32_t(bytes_.mostly(bytes_.below(30))), queries, pages,
                                        tensor(PS_F32, {tokens, d.num_query_heads, d.head_dim})));
    }
  }
}
