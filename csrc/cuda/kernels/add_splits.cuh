/* How products of few tokens are shared out between blocks, and what adds up the shares. */
#pragma once

#include "matvec.cuh"
#include "pack.cuh"

namespace ps {

/* How a product is shared out: block (x, y) takes part y of the inputs for part x of the outputs. The first `more` parts are larger by
 * one; chunks count inputs, tiles outputs. */
struct Shares {
  int chunks, more_chunks, tiles, more_tiles;
  float *sums; /* [splits, tokens, outputs] for add_splits; nullptr with one split: out is written at once */

  Shares(int64_t all_chunks, int splits, int64_t all_tiles, int groups, float *sums_of_splits)
      : chunks(static_cast<int>(all_chunks / splits)),
        more_chunks(static_cast<int>(all_chunks % splits)),
        tiles(static_cast<int>(all_tiles / groups)),
        more_tiles(static_cast<int>(all_tiles % groups)),
        sums(sums_of_splits) {}
};

/* What one block does. */
struct Share {
  int first_chunk, chunks, first_tile, end_tile;

  __device__ __forceinline__ explicit Share(const Shares &shares) {
    const int group = static_cast<int>(blockIdx.x), split = static_cast<int>(blockIdx.y);
    first_chunk = split * shares.chunks + min(split, shares.more_chunks);
    chunks = shares.chunks + (split < shares.more_chunks ? 1 : 0);
    first_tile = group * shares.tiles + min(group, shares.more_tiles);
    end_tile = first_tile + shares.tiles + (group < shares.more_tiles ? 1 : 0);
  }
};

/* out = bias + the sums of all splits, in order, added to what is there if `adds`: 4 bytes per split and output from the L2 cache.
 * sums [splits, tokens, p.outputs]; of each row the first `outputs`. */
static __global__ void __launch_bounds__(kRowThreads)
    add_splits_kernel(const __grid_constant__ MatmulParams p, const float *sums, int splits, int64_t outputs, bool adds) {
  let_next_start(); /* a few small blocks: they are out of its way */
  wait_for_previous();
  const Place place = place_of_thread<1>(outputs);
  if (place.column >= outputs) return;
  const float *sum = sums + place.row * p.outputs + place.column;
  const int64_t step = p.tokens * p.outputs;
  float total = 0;
#pragma unroll 8
  for (int split = 0; split < splits; split++) total += sum[split * step];
  float *out = p.out.row(place.row) + place.column;
  *out = (adds ? *out : 0.f) + (total + bias_at(p.bias, place.column));
}

static inline void add_splits(Backend &backend, const MatmulParams &params, const float *sums, int splits, int64_t outputs, bool adds) {
  launch(backend, "Could not launch the sums of matmul", add_splits_kernel, chunk_grid(params.tokens, outputs, 1), kRowThreads, 0, params, sums,
         splits, outputs, adds);
}

}  // namespace ps
