/* Rows of blocks as a file contains them, into the tiles of a weight. */
#pragma once

#include "weight_tiles.h"

namespace ps {
namespace PS_ISA {

template <typename F>
static void write_weight(ThreadPool &pool, const WeightWriteParams &p) {
  const TiledWeight<F, uint8_t> weight(p.weight, p.rows, p.inputs);
  const int64_t blocks = p.inputs / F::kNumbers;
  const int64_t first_tile = p.first_row / kRowsPerTile, tiles = (p.first_row + p.count + kRowsPerTile - 1) / kRowsPerTile - first_tile;
  parallel_ranges(pool, tiles, rows_per_task(kRowsPerTile * p.inputs), [&](int64_t begin, int64_t end) {
    const int64_t from = (first_tile + begin) * kRowsPerTile, to = (first_tile + end) * kRowsPerTile;
    const int64_t last = to < p.first_row + p.count ? to : p.first_row + p.count;
    for (int64_t row = from > p.first_row ? from : p.first_row; row < last; row++) {
      const auto *source = static_cast<const uint8_t *>(p.source) + (row - p.first_row) * blocks * int64_t(sizeof(typename F::Block));
      if (row >= weight.tiled_rows) __builtin_memcpy(weight.plain_row(row), source, static_cast<size_t>(blocks) * sizeof(typename F::Block));
      else write_tile_row<F>(weight.tile(row), int(row % kRowsPerTile), source);
    }
  });
}

static void weight_write(ThreadPool &pool, const WeightWriteParams &p) {
  with_format(p.weight.dtype, [&](auto format) { write_weight<decltype(format)>(pool, p); });
}

}  // namespace PS_ISA
}  // namespace ps
