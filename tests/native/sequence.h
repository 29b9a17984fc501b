/* A cache with one sequence of drawn keys and values, and what it stores of them. */
#pragma once

#include "numbers.h"

struct SequenceOptions {
  int32_t dtype, kv_type, page_size;
  int32_t group; /* query heads of a KV head */
  int32_t head_dim, statistics;
};

struct Sequence {
  ps_cache_desc desc{};
  ps_cache *cache = nullptr;
  ps_tensor table, lengths; /* [1, M], [1] */
  int64_t length;

  Sequence(Machine &machine, const SequenceOptions &options, int64_t tokens) : length(tokens) {
    const int64_t heads = 2, d = options.head_dim, page_size = options.page_size;
    const int64_t count = (tokens + page_size - 1) / page_size;
    desc.num_pages = desc.max_pages_per_sequence = count + 3;
    desc.num_layers = desc.max_sequences = 1;
    desc.num_kv_heads = int32_t(heads);
    desc.num_query_heads = int32_t(heads) * options.group;
    desc.head_dim = options.head_dim;
    desc.page_size = options.page_size;
    desc.dtype = options.dtype;
    desc.kv_type = options.kv_type;
    desc.statistics = options.statistics;
    MUST(ps_cache_create(machine.device(), &desc, &cache) == PS_OK);

    std::vector<int32_t> pages(size_t(desc.max_pages_per_sequence)), slots;
    for (size_t p = 0; p < pages.size(); p++) pages[p] = int32_t(pages.size() - 1 - p); /* physical pages in reverse */
    for (int64_t t = 0; t < tokens; t++) slots.push_back(int32_t(pages[size_t(t / page_size)] * page_size + t % page_size));
    table = machine.make({1, desc.max_pages_per_sequence}, pages, PS_I32);
    lengths = machine.make({1}, std::vector<int32_t>{int32_t(tokens)}, PS_I32);
    const ps_tensor k = machine.make({tokens, heads, d}, machine.draw(tokens * heads * d));
    const ps_tensor v = machine.make({tokens, heads, d}, machine.draw(tokens * heads * d));
    const ps_tensor at = machine.make({tokens}, slots, PS_I32);
    MUST(ps_append_kv(cache, 0, &k, &v, &at) == PS_OK);
    for (int64_t p = 0; p < count; p++) {
      keys_.push_back(field(p, PS_FIELD_KEYS));
      values_.push_back(field(p, PS_FIELD_VALUES));
    }
  }
  ~Sequence() { ps_cache_close(cache); }
  Sequence(const Sequence &) = delete;
  Sequence &operator=(const Sequence &) = delete;

  int64_t pages() const { return int64_t(keys_.size()); }
  /* [d] of a token, as stored. */
  const float *key(int64_t head, int64_t token) const { return place(keys_, head, token); }
  const float *value(int64_t head, int64_t token) const { return place(values_, head, token); }

  /* A field of a logical page. */
  std::vector<float> field(int64_t page, ps_cache_field which) const {
    const int64_t d = desc.head_dim, vectors = which <= PS_FIELD_VALUES ? desc.page_size : 1;
    std::vector<float> numbers(size_t(desc.num_kv_heads * (which == PS_FIELD_STD ? 1 : vectors * d)));
    const int32_t physical = int32_t(desc.num_pages - 1 - page);
    MUST(ps_cache_read(cache, 0, physical, which, numbers.data(), int64_t(numbers.size())) == PS_OK);
    return numbers;
  }

 private:
  const float *place(const std::vector<std::vector<float>> &pages, int64_t head, int64_t token) const {
    const int64_t at = head * desc.page_size + token % desc.page_size;
    return pages[size_t(token / desc.page_size)].data() + at * desc.head_dim;
  }

  std::vector<std::vector<float>> keys_, values_; /* by logical page: [Hk, S, d] */
};
