/* Tiles of 16 tokens: where a warp finds them, and how they come to its ring in shared memory. */
#pragma once

#include <algorithm>

#include "decode_attention.cuh"
#include "mma.cuh"

namespace ps {

constexpr int kTileTokens = 16;
constexpr int kDecodeWarps = kDecodeThreads / kWarp;
constexpr int kFewBlocksWarps = 8; /* of blocks that have a multiprocessor to themselves, where their rings fit */

/* Floats behind a warp's numbers of a head while the warps' are merged: maximum, total, and what avoids bank conflicts. */
constexpr int kMergePad = 8;

/* Tiles in a warp's ring where many blocks read few pages each. */
constexpr int kShortRing = 2;

/* Tiles in a warp's ring. GPUs before 9.0 may have 99 KiB of shared memory per block. */
PS_HOST_DEVICE constexpr int decode_stages(int head_dim, int capability) {
  return head_dim <= 64 ? 4 : head_dim <= 96 ? 3 : head_dim <= 128 && capability >= 90 ? 3 : 2;
}

/* Numbers of 8 bits are copied in pairs, as numbers of 16 bits of half as many dimensions. */
template <typename Kv, int D, int Warps = kDecodeWarps, int MostStages = 4>
struct DecodeTile {
  static constexpr bool kScaled = kIsScaled<Kv>;
  static constexpr int kRow = kScaled ? D / 2 : D; /* 16-bit numbers of a token */
  static constexpr int kWidth = block_width(kRow);
  static constexpr int kUnitBytes = 8 * kWidth * 2; /* 8 tokens of a block of dimensions, as they lie in the page */
  static constexpr int kHalfBytes = 8 * kRow * 2;   /* 8 tokens */
  static constexpr int kMatrixBytes = 2 * kHalfBytes;
  static constexpr int kScaleBytes = kScaled ? 2 * kTileTokens * 4 : 0;
  static constexpr int kBytes = 2 * kMatrixBytes + kScaleBytes; /* keys, values, then scales of keys and scales of values */
  static constexpr PS_HOST_DEVICE int stages(int capability) {
    return decode_stages(D, capability) < MostStages ? decode_stages(D, capability) : MostStages;
  }
  static constexpr int kStages = stages(kCapability);
  static constexpr int kWarpBytes = kStages * kBytes;
  static constexpr int kMergeBytes = Warps * kRowHeads * (D + kMergePad) * 4;
  static constexpr int kSharedBytes = Warps * kWarpBytes > kMergeBytes ? Warps * kWarpBytes : kMergeBytes;
  /* Of a block, on a device of any capability. */
  static int64_t shared_bytes(int capability) { return std::max(int64_t(Warps) * stages(capability) * kBytes, int64_t(kMergeBytes)); }
  static_assert(kRow % 32 == 0, "A warp copies units of at least 512 bytes, one chunk a lane");
};

/* 8 tokens of a page: where they lie, and which of them count. */
struct HalfTile {
  int32_t physical;
  int32_t packed; /* first token inside the page << 16 | first token of the 8 that counts << 8 | one past the last */

  __device__ __forceinline__ int place() const { return packed >> 16; }
  __device__ __forceinline__ bool counts(int token) const { return token >= (packed >> 8 & 0xff) && token < (packed & 0xff); }
};

/* Known: the pages of the list have been looked up and checked, and lie in shared memory. */
template <bool Known>
__device__ __forceinline__ HalfTile locate(const DecodeLaunch &launch, const RowPages &row, int32_t token) {
  const int32_t place = row.begin + (token >> row.page_shift), inside = token & ((1 << row.page_shift) - 1);
  if (place >= row.end) return {0, 0};
  const int32_t logical = Known ? row.selected[place] : logical_page(launch, row, place), start = (logical << row.page_shift) + inside;
  const int32_t begin = min(max(row.first_token - start, 0), 8), end = min(max(row.length - start, 0), 8);
  return {Known ? row.physical[place] : physical_page(launch, row, logical), inside << 16 | begin << 8 | end};
}

/* A warp's tiles, looked up 16 at a time: lane l holds half l % 2 of tile l / 2, so that one wait for the page table serves all. The
 * next 16 are under way while these are used. */
template <bool Known>
struct TileBook {
  const int warps; /* that share the tiles out */
  HalfTile here, next;

  __device__ __forceinline__ explicit TileBook(int warps) : warps(warps) {}

  __device__ __forceinline__ HalfTile look_up(const DecodeLaunch &launch, const RowPages &row, int ordinal) const {
    const int lane = threadIdx.x % kWarp, tile = threadIdx.x / kWarp + (ordinal + lane / 2) * warps;
    return locate<Known>(launch, row, tile * kTileTokens + lane % 2 * 8);
  }
  /* tiles: of this warp */
  __device__ __forceinline__ void open(const DecodeLaunch &launch, const RowPages &row, int tiles) {
    here = look_up(launch, row, 0);
    next = tiles > kWarp / 2 ? look_up(launch, row, kWarp / 2) : HalfTile{0, 0};
  }
  /* Half of the warp's tile number `ordinal`, which lies at most 15 after the last multiple of 16 that was turned to. */
  __device__ __forceinline__ HalfTile half(int ordinal, int which) const {
    const int lane = ordinal % (kWarp / 2) * 2 + which;
    return {__shfl_sync(kAllLanes, here.physical, lane), __shfl_sync(kAllLanes, here.packed, lane)};
  }
  __device__ __forceinline__ void turn(const DecodeLaunch &launch, const RowPages &row, int ordinal) {
    here = next;
    next = look_up(launch, row, ordinal + kWarp / 2);
  }
};

/* Asks for one tile: both halves of keys and of values. */
template <typename Kv, int D>
__device__ __forceinline__ void request_tile(const DecodeLaunch &launch, const RowPages &row, const HalfTile (&halves)[2], uint32_t target) {
  using Tile = DecodeTile<Kv, D>;
  const CacheView &cache = launch.params.cache;
  const Layout layout(cache.desc);
  const int lane = threadIdx.x % kWarp, block_elements = cache.desc.page_size * Tile::kWidth;
  const uint16_t *keys = static_cast<const uint16_t *>(cache.keys), *values = static_cast<const uint16_t *>(cache.values);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const HalfTile &tile = halves[half];
    const int64_t page = layout.tokens(launch.params.layer, row.head, tile.physical), base = page / (D / Tile::kRow) + tile.place() * Tile::kWidth;
#pragma unroll
    for (int i = 0; i < Tile::kHalfBytes / 16 / kWarp; i++) {
      const int chunk = i * kWarp + lane, unit = chunk / (Tile::kUnitBytes / 16), inside = chunk % (Tile::kUnitBytes / 16);
      const bool valid = tile.counts(inside / (Tile::kWidth / 8));
      const int64_t from = base + unit * block_elements + inside * 8;
      const uint32_t to = target + half * Tile::kHalfBytes + chunk * 16;
      copy_async(to, keys + from, valid);
      copy_async(to + Tile::kMatrixBytes, values + from, valid);
    }
  }
  if constexpr (Tile::kScaled) { /* four lanes a kind, two a half */
    const HalfTile tile = lane / 2 % 2 == 0 ? halves[0] : halves[1]; /* an index would move both to memory */
    const int64_t from = layout.token(launch.params.layer, row.head, tile.physical) + tile.place() + lane % 2 * 4;
    if (lane < 8) copy_async(target + 2 * Tile::kMatrixBytes + lane * 16, (lane < 4 ? cache.key_scale : cache.value_scale) + from, true);
  }
}

}  // namespace ps
