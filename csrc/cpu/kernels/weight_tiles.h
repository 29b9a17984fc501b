/* How weights in blocks lie in memory: in tiles of kRowsPerTile rows, whose numbers of one input lie side by side, so that a vector holds a
 * number of each row, sums need no addition across lanes, and a tile is read from its first byte to its last. A tile takes the bytes of its
 * rows. Rows behind the last whole tile lie as in a file.
 *
 * A tile begins with the levels, one group of inputs after the other: 4-byte pieces of kRowsPerTile rows with four levels of 8 bits, or with four
 * pairs of low 4 bits of inputs i and i + 16; then, per further bit of a level, a bit for each of these bytes. (A piece of f8 is one byte.)
 * The scales of all blocks follow, their f16 numbers and bytes again row by row. */
#pragma once

#include "quantized.h"

namespace ps {
namespace PS_ISA {

constexpr int kRowsPerTile = 16;
constexpr int kTilePiece = 4 * kRowsPerTile; /* bytes with four levels of every row */

template <typename F>
struct TileLayout {
  static constexpr int kPlanes = F::kBits == 8 ? 0 : F::kBits - 4;
  static constexpr int kLevelPieces = F::kBits == 8 ? 8 : 4;
  static constexpr int kGroupBytes = (kLevelPieces + kPlanes) * kTilePiece;
  static constexpr int kScaleBytes = F::kScaleBytes * kRowsPerTile; /* of a block */
  static constexpr int kBlockBytes = F::kGroups * kGroupBytes + kScaleBytes;
  static_assert(kBlockBytes == kRowsPerTile * int(sizeof(typename F::Block)), "A tile takes the bytes of its rows");

  /* Where byte `at` of a block's scales lies. A byte of an f16 number stays beside the other one. */
  static constexpr int scale_place(int at, int row) {
    constexpr bool kGrouped = F::kGroups == 8;
    const bool bytes = kGrouped && (F::kScalesPerGroup == 2 ? at < 16 : at >= 4);
    const int width = bytes ? 1 : F::kScaleBytes == 4 && F::kGroups == 4 ? 4 : 2;
    return at / width * width * kRowsPerTile + row * width + at % width;
  }
};

/* A tile of rows of `groups` groups. */
template <typename F, typename Byte>
struct WeightTile {
  using Layout = TileLayout<F>;
  Byte *data;
  int64_t groups;

  Byte *levels(int64_t group) const { return data + group * Layout::kGroupBytes; }
  Byte *scales(int64_t block) const { return data + groups * Layout::kGroupBytes + block * Layout::kScaleBytes; }
};

template <typename F>
static void write_tile_row(const WeightTile<F, uint8_t> &tile, int row, const uint8_t *source) {
  using Layout = TileLayout<F>;
  typename F::Block block; /* a copy: in the caller's memory, blocks may begin at any byte */
  for (int64_t group = 0; group < tile.groups; group++) {
    if (group % F::kGroups == 0) __builtin_memcpy(&block, source + group / F::kGroups * int64_t(sizeof block), sizeof block);
    uint8_t *out = tile.levels(group), *planes = out + Layout::kLevelPieces * kTilePiece;
    for (int i = 0; i < kGroup; i++) {
      const int level = F::level(block, int(group % F::kGroups), i);
      if constexpr (std::is_same<F, F8>::value) out[i * kRowsPerTile + row] = static_cast<uint8_t>(level);
      else if constexpr (F::kBits == 8) out[i / 4 * kTilePiece + 4 * row + i % 4] = static_cast<uint8_t>(level);
      else {
        uint8_t &pair = out[i % 16 / 4 * kTilePiece + 4 * row + i % 4];
        pair = static_cast<uint8_t>(i < 16 ? (pair & 0xf0) | (level & 15) : (pair & 15) | (level & 15) << 4);
        for (int plane = 0; plane < Layout::kPlanes; plane++) {
          const int bit = 4 * row + i % 4;
          uint8_t &byte = planes[plane * kTilePiece + i / 4 * 8 + bit / 8];
          byte = static_cast<uint8_t>((byte & ~(1 << bit % 8)) | (level >> (4 + plane) & 1) << bit % 8);
        }
      }
    }
  }
  for (int64_t b = 0; b < tile.groups / F::kGroups; b++) {
    const uint8_t *scales = source + b * int64_t(sizeof block) + F::kScaleAt;
    for (int at = 0; at < F::kScaleBytes; at++) tile.scales(b)[Layout::scale_place(at, row)] = scales[at];
  }
}

/* The levels of a group of a row. */
template <typename F>
static void read_levels(const WeightTile<F, const uint8_t> &tile, int row, int64_t group, uint8_t *levels) {
  using Layout = TileLayout<F>;
  const uint8_t *from = tile.levels(group), *planes = from + Layout::kLevelPieces * kTilePiece;
  for (int i = 0; i < kGroup; i++) {
    if constexpr (std::is_same<F, F8>::value) levels[i] = from[i * kRowsPerTile + row];
    else if constexpr (F::kBits == 8) levels[i] = from[i / 4 * kTilePiece + 4 * row + i % 4];
    else {
      const uint8_t pair = from[i % 16 / 4 * kTilePiece + 4 * row + i % 4];
      int level = i < 16 ? pair & 15 : pair >> 4;
      for (int plane = 0; plane < Layout::kPlanes; plane++) {
        const int bit = 4 * row + i % 4;
        level |= (planes[plane * kTilePiece + i / 4 * 8 + bit / 8] >> bit % 8 & 1) << (4 + plane);
      }
      levels[i] = static_cast<uint8_t>(level);
    }
  }
}

/* A weight [rows, inputs] in tiles. */
template <typename F, typename Byte>
struct TiledWeight {
  Byte *data;
  int64_t row_bytes; /* from one row to the next */
  int64_t tiled_rows, groups;

  TiledWeight(const Typed &weight, int64_t rows, int64_t inputs)
      : data(static_cast<Byte *>(const_cast<void *>(weight.data))),
        row_bytes(weight.stride / F::kNumbers * int64_t(sizeof(typename F::Block))),
        tiled_rows(rows / kRowsPerTile * kRowsPerTile),
        groups(inputs / kGroup) {}

  WeightTile<F, Byte> tile(int64_t row) const { return {data + row / kRowsPerTile * kRowsPerTile * row_bytes, groups}; }
  Byte *plain_row(int64_t row) const { return data + row * row_bytes; }
};

/* The numbers of a group of inputs of a row. */
template <typename F>
static void read_weight_group(const TiledWeight<F, const uint8_t> &weight, int64_t row, int64_t group, float *out) {
  using Block = typename F::Block;
  const int64_t b = group / F::kGroups;
  const int inside = int(group % F::kGroups), in_tile = int(row % kRowsPerTile);
  uint8_t levels[kGroup], scales[F::kScaleBytes];
  if (row < weight.tiled_rows) {
    const auto tile = weight.tile(row);
    read_levels<F>(tile, in_tile, group, levels);
    for (int at = 0; at < F::kScaleBytes; at++) scales[at] = tile.scales(b)[TileLayout<F>::scale_place(at, in_tile)];
  } else {
    const uint8_t *bytes = weight.plain_row(row) + b * int64_t(sizeof(Block));
    for (int i = 0; i < kGroup; i++) levels[i] = static_cast<uint8_t>(F::level(*reinterpret_cast<const Block *>(bytes), inside, i));
    __builtin_memcpy(scales, bytes + F::kScaleAt, sizeof scales);
  }
  dequantize_group<F>(levels, scales, inside, out);
}

template <typename F>
static void read_weight_row(const TiledWeight<F, const uint8_t> &weight, int64_t row, float *out) {
  for (int64_t group = 0; group < weight.groups; group++) read_weight_group(weight, row, group, out + group * kGroup);
}

}  // namespace PS_ISA
}  // namespace ps
