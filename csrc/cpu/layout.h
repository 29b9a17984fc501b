/* Where the numbers of a page lie on the CPU. Pools are cut into [layers, Hk, pages, one page].
 *
 * Keys are stored transposed, [d, S]: one load gives the same dimension of 8 tokens, so q.k needs no sum across lanes, and the
 * pages of a block are the panel that the prefill product reads. Values are stored [S, d]. */
#pragma once

#include <cstdint>

#include "../params.h"

namespace ps {

struct Layout {
  int64_t pages, heads, head_dim, page_size;

  explicit Layout(const ps_cache_desc &desc) : pages(desc.num_pages), heads(desc.num_kv_heads), head_dim(desc.head_dim), page_size(desc.page_size) {}

  /* Index of a page's single number (std). */
  int64_t page(int64_t layer, int64_t head, int64_t physical) const { return (layer * heads + head) * pages + physical; }
  /* First element of a page's d numbers (mean, variance, min, max). */
  int64_t vector(int64_t layer, int64_t head, int64_t physical) const { return page(layer, head, physical) * head_dim; }
  /* First element of a page's S * d numbers (keys, values). */
  int64_t tokens(int64_t layer, int64_t head, int64_t physical) const { return vector(layer, head, physical) * page_size; }
  /* First of a page's S numbers (scales of keys and values). */
  int64_t token(int64_t layer, int64_t head, int64_t physical) const { return page(layer, head, physical) * page_size; }
  /* Inside a page. */
  int64_t key(int64_t place, int64_t dim) const { return dim * page_size + place; }
  int64_t value(int64_t place, int64_t dim) const { return place * head_dim + dim; }
};

}  // namespace ps
