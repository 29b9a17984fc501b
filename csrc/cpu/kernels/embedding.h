/* out[t] = table[ids[t]]. Reads one row of the table per token. */
#pragma once

#include "weight_tiles.h"

namespace ps {
namespace PS_ISA {

template <typename T>
static void widen_row(const T *source, float *target, int64_t width) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(target + i, load(source + i));
  for (; i < width; i++) target[i] = to_float(source[i]);
}

static void embedding(ThreadPool &pool, const EmbeddingParams &p) {
  if (is_block_format(p.table.dtype)) {
    return with_format(p.table.dtype, [&](auto format) {
      const TiledWeight<decltype(format), const uint8_t> table(p.table, p.vocabulary, p.width);
      parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
        for (int64_t t = first; t < end; t++) read_weight_row(table, p.ids[t], p.out.row(t));
      });
    });
  }
  with_dtype(p.table.dtype, [&](auto type) {
    const auto *table = static_cast<const decltype(type) *>(p.table.data);
    parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
      for (int64_t t = first; t < end; t++) widen_row(table + p.ids[t] * p.table.stride, p.out.row(t), p.width);
    });
  });
}

}  // namespace PS_ISA
}  // namespace ps
