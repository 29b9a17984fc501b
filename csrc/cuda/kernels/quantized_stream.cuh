/* The way of a warp through the weights in blocks of its share: whole stages, which lie one behind the other (quantized.cuh), into a ring of its
 * own, across tiles. */
#pragma once

#include "add_splits.cuh"
#include "mma.cuh"
#include "quantized_x.cuh"

namespace ps {

/* How the tiles of a weight in blocks lie. */
struct TileLayout {
  int64_t stride; /* bytes from one tile to the next */
  int regions;    /* of a tile */
};

/* Stages of a warp in each tile of the share: warps take turns. */
template <typename F, bool OneToken>
__device__ __forceinline__ int own_stages_of(const Share &share) {
  constexpr int kBlockWarps = kWarps<F, OneToken>;
  const int warp = threadIdx.x / kWarp;
  return share.chunks > warp ? (share.chunks - warp + kBlockWarps - 1) / kBlockWarps : 0;
}

/* Where in the share a warp's copies stand: what it copies next, and how many bytes of the tile lie from there on. */
template <typename F, bool OneToken>
struct QuantizedStream {
  const uint8_t *source;
  int to_next_tile; /* bytes from the warp's last stage of a tile to its first of the next one */
  int to_tile_after; /* the same for the tile after that: gates and the numbers that they multiply take turns */
  int left, left_of_tile, step, steps, tiles;

  static constexpr int kStep = kWarps<F, OneToken> * kStageBytes<F>;

  /* A warp with `count` stages per tile, from stage `first` on. to_partner: bytes from gates to the numbers that they multiply, or 0. */
  __device__ __forceinline__ QuantizedStream(const void *weights, int64_t tile_stride, int tile_bytes, int first_tile, int tile_count, int first,
                                             int count, int to_partner)
      : step(0), steps(count), tiles(count > 0 ? tile_count : 0) {
    const int begin = first * kStageBytes<F>;
    source = static_cast<const uint8_t *>(weights) + first_tile * tile_stride + begin;
    left = left_of_tile = tile_bytes - begin;
    const int back = (count - 1) * kStep, to_next = static_cast<int>(tile_stride);
    to_next_tile = (to_partner == 0 ? to_next : to_partner) - back;
    to_tile_after = to_next - to_partner - back;
  }

  __device__ __forceinline__ bool active() const { return tiles > 0; }

  __device__ __forceinline__ void advance() {
    if (++step < steps) {
      source += kStep, left -= kStep;
    } else {
      source += to_next_tile, left = left_of_tile;
      step = 0, tiles--;
      if constexpr (OneToken) {
        const int next = to_tile_after;
        to_tile_after = to_next_tile, to_next_tile = next;
      }
    }
  }
};

/* A ring of `Stages` stages of a warp, whose lanes all call. Every lane copies its own pieces of 16 bytes. */
template <typename F, bool OneToken, int Stages>
struct StageRing {
  QuantizedStream<F, OneToken> stream;
  uint8_t *const memory; /* [Stages, kStageBytes] */
  int slot = 0;          /* that is read next, and copied to once it has been read */

  /* Starts to copy the first stages. */
  __device__ __forceinline__ StageRing(const QuantizedStream<F, OneToken> &from, uint8_t *warp_memory) : stream(from), memory(warp_memory) {
#pragma unroll 1
    for (int i = 0; i < Stages; i++) copy_next(i);
  }

  /* Waits for the stage that is read next. */
  __device__ __forceinline__ const uint8_t *wait() const {
    copy_wait<Stages - 1>();
    __syncwarp();
    return memory + slot * kStageBytes<F>;
  }

  /* Ends the reading of that stage. */
  __device__ __forceinline__ void release() {
    __syncwarp();
    copy_next(slot);
    slot = slot + 1 == Stages ? 0 : slot + 1;
  }

 private:
  /* Copies a stage to a slot, with zeros for regions past the last. */
  __device__ __forceinline__ void copy_next(int to) {
    if (stream.active()) {
      const int lane = threadIdx.x % kWarp * 16;
      const uint32_t target = shared_address(memory + to * kStageBytes<F>) + lane;
      const uint8_t *const source = stream.source + lane;
#pragma unroll
      for (int at = 0; at < kStageBytes<F>; at += kWarp * 16) {
        const bool mine = kStageBytes<F> - at >= kWarp * 16 || lane < kStageBytes<F> - at;
        if (mine) copy_async_once(target + at, source + at, kStageRegions<F> == 1 || at + lane < stream.left);
      }
      stream.advance();
    }
    copy_commit();
  }
};

}  // namespace ps
