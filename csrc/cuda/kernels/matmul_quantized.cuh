/* The product of a few tokens with weights in blocks: 2 to 16 tokens on tensor cores, every weight read once. Bound by the bytes of the
 * weights.
 *
 * A block takes a share of the tiles (16 outputs) and, where x does not fit, of the inputs (add_splits.cuh then adds up). It rounds its x
 * to f16 once, each token times a power of two, into shared memory. Its warps share out the inputs of each tile; every warp copies whole
 * stages of weights, which lie one behind the other (quantized.cuh), into a ring of its own, across tiles and before the previous kernel is
 * done: no operation that runs beside it writes weights. At the end of a tile the block adds up what its warps found, in order. */
#pragma once

#include "add_splits.cuh"
#include "quantized_stream.cuh"
#include "quantized_unpack.cuh"

namespace ps {

/* Stages in a warp's ring. Of few tokens two blocks fit a multiprocessor; of many x takes the room. */
template <typename F, int Columns>
constexpr int kStages = Columns > 1 || kStageBytes<F> > 2304 ? 2 : 4608 / kStageBytes<F>;

constexpr int kMostWarps = 32;

/* Shared memory, in this order: rings; x; sums of the warps, twice where a tile may be added up while the next one is begun. */
constexpr int kSumStride = kTileRows + 4; /* floats of a token: no bank conflicts */
template <typename F, int Columns>
constexpr int64_t quantized_sum_bytes(int64_t tokens) {
  return (Columns == 1 ? 2 : 1) * kWarps<F, false> * tokens * kSumStride * 4;
}
template <typename F, int Columns>
constexpr int64_t kQuantizedRingBytes = int64_t(kWarps<F, false>) * kStages<F, Columns> * kStageBytes<F>;

/* out = x * weight^T + bias for `Columns` times 8 tokens at most. The chunks of `shares` are stages. */
template <typename F, int Columns>
__global__ void __launch_bounds__(kThreads<F, false>, Columns == 1 ? kMostWarps / kWarps<F, false> : 1)
    quantized_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ Shares shares, const __grid_constant__ TileLayout layout,
                     const __grid_constant__ PreparedX rounded) {
  constexpr int kBlockWarps = kWarps<F, false>;
  extern __shared__ __align__(kLineBytes) uint4 shared[];
  let_next_start(); /* a block of the next product then follows each of this one without a pause */
  const Share share(shares);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, tokens = static_cast<int>(p.tokens);
  const int own_stages = own_stages_of<F, false>(share);
  const int tiles = share.end_tile - share.first_tile;
  const QuantizedStream<F, false> stream(p.weight.data, layout.stride, layout.regions * F::kRegionBytes, share.first_tile, tiles,
                                         share.first_chunk + warp, own_stages, 0);
  StageRing<F, false, kStages<F, Columns>> ring(stream, reinterpret_cast<uint8_t *>(shared) + warp * kStages<F, Columns> * kStageBytes<F>);
  const int subs = share.chunks * kStageSubs<F>;
  char *const memory = reinterpret_cast<char *>(shared) + kQuantizedRingBytes<F, Columns>;
  const PreparedX x = place_x<F>(memory, subs, tokens);
  float *const all_partials = reinterpret_cast<float *>(memory + prepared_bytes<F>(subs, tokens)), *partial = all_partials;
  __shared__ float own_undo[Columns == 1 ? kBlockWarps : 1][kColumnTokens];
  wait_for_previous();
  if constexpr (Columns == 1) prepare_own_x<F>(p, share.first_chunk, own_stages, x, own_undo[warp]);
  else copy_x<F>(rounded, share.first_chunk * kStageSubs<F>, subs, tokens, x);

  /* Columns past the tokens compute the last one once more; they are not stored. */
  int own_token[Columns], sum_tokens[Columns][2];
#pragma unroll
  for (int column = 0; column < Columns; column++) {
    own_token[column] = min(column * kColumnTokens + lane / 4, tokens - 1);
#pragma unroll
    for (int i = 0; i < 2; i++) sum_tokens[column][i] = min(column * kColumnTokens + lane % 4 * 2 + i, tokens - 1);
  }
  for (int tile = 0; tile < tiles; tile++) {
    float sums[Columns][4] = {};
    for (int stage = 0; stage < own_stages; stage++) {
      const uint8_t *const source = ring.wait();
      const int first_sub = (warp + stage * kBlockWarps) * kStageSubs<F>;
      multiply_stage<F, Columns, false>(source, x, first_sub, tokens, own_token, sum_tokens, sums);
      ring.release();
    }
    /* partial [warps, tokens, kSumStride] */
    const int warp_sums = tokens * kSumStride;
    if constexpr (Columns == 1) partial = all_partials + tile % 2 * kBlockWarps * warp_sums;
#pragma unroll
    for (int column = 0; column < Columns; column++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = column * kColumnTokens + lane % 4 * 2 + i % 2;
        if (token >= tokens) continue;
        const float undo = Columns == 1 ? own_undo[warp][token] : x.undo[token];
        partial[warp * warp_sums + token * kSumStride + lane / 4 + i / 2 * 8] = sums[column][i] * undo;
      }
    }
    __syncthreads();
    for (int place = threadIdx.x; place < tokens * kTileRows; place += kThreads<F, false>) {
      const int token = place / kTileRows, row = place % kTileRows;
      const int64_t n = int64_t(share.first_tile + tile) * kTileRows + row;
      float total = 0;
#pragma unroll
      for (int w = 0; w < kBlockWarps; w++) total += partial[w * warp_sums + token * kSumStride + row];
      if (shares.sums == nullptr) p.out.row(token)[n] = total + bias_at(p.bias, n);
      else shares.sums[(int64_t(blockIdx.y) * tokens + token) * p.outputs + n] = total;
    }
    if constexpr (Columns > 1) __syncthreads(); /* `partial` is free again */
  }
}

}  // namespace ps
