/* Which pages a decode query reads, and into how many splits the list is cut. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

/* One sequence and KV head: which pages its query reads. */
struct PageList {
  const int32_t *table, *selected; /* selected: nullptr for all from first_page on */
  int64_t first_page, count, splits, first_token, length;
};

static PageList list_pages(const DecodeAttentionParams &p, int64_t sequence, int64_t head) {
  const int64_t page_size = p.cache.desc.page_size, length = p.sequences.lengths[sequence];
  PageList list{p.sequences.page_table + sequence * p.sequences.table_stride, nullptr, 0, (length + page_size - 1) / page_size, 1, 0, length};
  if (p.window > 0 && length > p.window) {
    list.first_token = length - p.window;
    list.first_page = list.first_token / page_size;
    list.count -= list.first_page;
  }
  if (p.selected != nullptr) {
    const int64_t row = sequence * p.cache.desc.num_kv_heads + head;
    list.selected = p.selected + row * p.k;
    list.count = p.counts[row];
  }
  const int64_t splits = (list.count * page_size + kSplitTokens - 1) / kSplitTokens;
  list.splits = splits < 1 ? 1 : splits > kMaxSplits ? kMaxSplits : splits;
  return list;
}

}  // namespace PS_ISA
}  // namespace ps
