/* A tile of a prompt with chosen pages as a call of its own: the chosen pages and the tile's own are the pages of a shorter sequence, at whose
 * end the tile stands. All chosen pages come before the tile, so causality stays what it was. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

/* Pages of that sequence: chosen ones and own ones. */
static int64_t most_tile_pages(const PrefillAttentionParams &p) {
  return p.k + (p.tile_tokens < p.tokens ? p.tile_tokens : p.tokens) / p.cache.desc.page_size + 2;
}

static PrefillAttentionParams tile_call(const PrefillAttentionParams &p, int64_t tile, int64_t head, int32_t *table) {
  const int64_t page_size = p.cache.desc.page_size, first = p.tiles().first(tile), end = p.tiles().end(tile);
  const int64_t row = tile * p.cache.desc.num_kv_heads + head, count = p.counts[row];
  const int64_t own = (p.start + first) / page_size, own_end = (p.start + end + page_size - 1) / page_size;
  for (int64_t i = 0; i < count; i++) table[i] = p.page_table[p.selected[row * p.k + i]];
  for (int64_t page = own; page < own_end; page++) table[count + page - own] = p.page_table[page];
  PrefillAttentionParams call = p;
  call.q.data = p.q.row(first);
  call.out.data = p.out.row(first);
  call.page_table = table;
  call.max_pages = count + own_end - own;
  call.start = p.start + first - (own - count) * page_size;
  call.tokens = end - first;
  call.selected = call.counts = nullptr;
  return call;
}

static void count_prompt_pages(const PrefillAttentionParams &p) {
  const int64_t page_size = p.cache.desc.page_size, heads = p.cache.desc.num_kv_heads;
  for (int64_t row = 0; row < p.tiles().count() * heads; row++) {
    const int64_t own = (p.start + p.tiles().first(row / heads)) / page_size;
    const int64_t visible = (p.start + p.tiles().end(row / heads) + page_size - 1) / page_size;
    p.cache.counters->prompt_pages_attended += p.counts[row] + visible - own;
    p.cache.counters->prompt_pages_visible += visible;
  }
}

}  // namespace PS_ISA
}  // namespace ps
