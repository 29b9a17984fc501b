/* The product of one token with weights in blocks. Bound by the bytes of the weights.
 *
 * A block takes a share of the tiles (16 outputs) and, where x does not fit, of the inputs (add_splits.cuh then adds up). Its warps share out
 * the inputs of each tile: each rounds the x of its own inputs to f16, 256 times the same power of two, and copies their weights into a ring of its
 * own, across tiles and before the previous kernel is done: no operation that runs beside it writes weights. A multiprocessor takes one block, and
 * beside it one of the next product (product_room.h), which fills its rings while this one ends and its x is computed. Warps wait for each other
 * once per turn of 8 tiles, when the block adds up what they found, in order.
 *
 * The product may take in its norm and its ending (joins.cuh). A gated block takes a tile of gates, then the tile of the numbers that they
 * multiply. */
#pragma once

#include "add_splits.cuh"
#include "quantized_stream.cuh"
#include "quantized_unpack.cuh"

namespace ps {

constexpr int kTurnTiles = 8;
constexpr int kVectorRegisters = 104; /* of a thread: those of a block of sparse attention fit beside */

/* Stages in a warp's ring: 80 KiB for the block, as for weights of 16 bits. */
template <typename F>
constexpr int kVectorStages = 10240 / kStageBytes<F>;

/* Shared memory, in this order: rings; x; sums of the warps, twice: a turn is added up while the next one is begun. */
template <typename F>
constexpr int64_t kVectorRingBytes = int64_t(kWarps<F, true>) * kVectorStages<F> * kStageBytes<F>;
template <typename F>
constexpr int64_t kTurnSums = int64_t(kTurnTiles) * kWarps<F, true> * kTileRows;

/* Numbers that undo the scales of x of a block with so many stages: of every warp as many as the first one has, and a multiple of 4 in all. */
template <typename F>
PS_HOST_DEVICE constexpr int vector_undos(int stages) {
  return kWarps<F, true> * scales_of<F>((stages + kWarps<F, true> - 1) / kWarps<F, true>);
}

template <typename F>
constexpr int64_t vector_bytes(int64_t stages) {
  return kVectorRingBytes<F> + prepared_bytes<F>(stages * kStageSubs<F>, 1, vector_undos<F>(static_cast<int>(stages))) + 2 * kTurnSums<F> * 4;
}

/* A stage of one token: adds rows g and g + 8 to `sums`. undo: of the scale of its x. Where sub-blocks are columns, every lane has a part of them;
 * otherwise lanes with t = 0 have them. */
template <typename F>
__device__ __forceinline__ void multiply_vector(const uint8_t *stage, const PreparedX &x, int first_sub, float undo, float (&sums)[2]) {
  float rows[2] = {};
  if constexpr (F::kScales == Scales::kSixBits) {
    multiply_region<F>(stage, x, first_sub, rows);
  } else {
    float columns[1][4] = {};
    multiply_stage<F, 1, true>(stage, x, first_sub, 1, {0}, {{0, 0}}, columns);
    rows[0] = columns[0][0], rows[1] = columns[0][2];
  }
  sums[0] = fmaf(rows[0], undo, sums[0]), sums[1] = fmaf(rows[1], undo, sums[1]);
}

/* Adds up what the warps found of the output of this thread, in order, and stores it. tile: of the block's `tiles` tiles of weights; partial: of
 * the tile, [warps, rows]; scale: of the norm, found by the first turn from squares [warps]. Whole warps call. */
template <typename F>
__device__ __forceinline__ void store_vector(const MatmulParams &p, const Joins &joins, const Share &share, float *splits, const float *partial,
                                             int tile, float before, const float *squares, float &scale) {
  const int row = threadIdx.x % kTileRows;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps<F, true>; w++) total += partial[w * kTileRows + row];
  if (squares != nullptr) scale = norm_scale<kWarps<F, true>>(joins, squares, p.inputs);
  if (joins.gated()) {
    const int64_t n = int64_t(share.first_tile + tile / 2) * kTileRows + row;
    const float own = total * scale + bias_at(p.bias, tile % 2 == 0 ? n : p.outputs / 2 + n);
    const float up = __shfl_down_sync(kAllLanes, own, kTileRows);
    if (tile % 2 == 0) p.out.data[n] = activate(joins.ending, own) * up;
    return;
  }
  const int64_t n = int64_t(share.first_tile + tile) * kTileRows + row;
  if (splits == nullptr) p.out.data[n] = before + (total * scale + bias_at(p.bias, n));
  else splits[int64_t(blockIdx.y) * p.outputs + n] = total;
}

/* out = x * weight^T + bias for one token. The chunks of `shares` are stages. A block beyond the tiles only keeps its multiprocessor for the next
 * kernel's. */
template <typename F>
__global__ void __maxnreg__(kVectorRegisters) vector_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ Joins joins,
                                                            const __grid_constant__ Shares shares, const __grid_constant__ TileLayout layout) {
  constexpr int kBlockWarps = kWarps<F, true>, kStages = kVectorStages<F>;
  static_assert(kTurnTiles * kTileRows <= kThreads<F, true> && kTurnTiles % 2 == 0, "A thread adds up one output of a turn; gates come in pairs");
  extern __shared__ __align__(kLineBytes) uint4 shared[];
  let_next_start();
  const Share share(shares);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int own_stages = own_stages_of<F, true>(share);
  const bool gated = joins.gated();
  const int tiles = (share.end_tile - share.first_tile) * (gated ? 2 : 1); /* of weights */
  const int to_partner = gated ? static_cast<int>(p.outputs / 2 / kTileRows * layout.stride) : 0;
  const QuantizedStream<F, true> stream(p.weight.data, layout.stride, layout.regions * F::kRegionBytes, share.first_tile, tiles,
                                        share.first_chunk + warp, own_stages, to_partner);
  StageRing<F, true, kStages> ring(stream, reinterpret_cast<uint8_t *>(shared) + warp * kStages * kStageBytes<F>);
  const int subs = share.chunks * kStageSubs<F>, undos = vector_undos<F>(share.chunks);
  char *const memory = reinterpret_cast<char *>(shared) + kVectorRingBytes<F>;
  const PreparedX x = place_x<F>(memory, subs, 1, undos);
  float *const undo = x.undo + warp * (undos / kBlockWarps), *partial = reinterpret_cast<float *>(memory + prepared_bytes<F>(subs, 1, undos));
  __shared__ float squares[kBlockWarps];
  joins.prefetch(p.inputs);
  wait_for_previous();
  if (tiles == 0) return;
  const float own_squares = prepare_vector_x<F>(p, joins, share.first_chunk, own_stages, x, undo);

  int flip = 0;
  float scale = 1;
  for (int first = 0; first < tiles; first += kTurnTiles) {
    const int turn_tiles = min(kTurnTiles, tiles - first);
    const int own_tile = static_cast<int>(threadIdx.x) / kTileRows; /* of the turn, whose output this thread adds up */
    const bool adds = joins.ending == PS_ADD && shares.sums == nullptr && own_tile < turn_tiles;
    const float before = adds ? p.out.data[int64_t(share.first_tile + first) * kTileRows + threadIdx.x] : 0.f; /* asked for early */
    float *const sums_of_turn = partial + flip * kTurnSums<F>;
#pragma unroll 1
    for (int tile = 0; tile < turn_tiles; tile++) {
      float sums[2] = {};
#pragma unroll 1
      for (int stage = 0; stage < own_stages; stage++) {
        multiply_vector<F>(ring.wait(), x, (warp + stage * kBlockWarps) * kStageSubs<F>, undo[stage * kStageSubs<F> / kScaleSubs], sums);
        ring.release();
      }
      if constexpr (F::kScales == Scales::kSixBits) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
          sums[row] += __shfl_xor_sync(kAllLanes, sums[row], 1);
          sums[row] += __shfl_xor_sync(kAllLanes, sums[row], 2);
        }
      }
      if (lane % 4 == 0) {
        float *const own = sums_of_turn + (tile * kBlockWarps + warp) * kTileRows + lane / 4;
        own[0] = sums[0], own[8] = sums[1];
      }
    }
    if (first == 0 && joins.norm != nullptr) {
      const float sum = warp_sum(own_squares);
      if (lane == 0) squares[warp] = sum;
    }
    __syncthreads(); /* also: the turn before has been read */
    if (own_tile < turn_tiles) {
      store_vector<F>(p, joins, share, shares.sums, sums_of_turn + own_tile * kBlockWarps * kTileRows, first + own_tile, before,
                      first == 0 ? squares : nullptr, scale);
    }
    flip ^= 1;
  }
}

}  // namespace ps
