/* The second half of a product whose inputs were shared out: adds up what the shares found. */
#pragma once

#include "matvec.cuh"
#include "pack.cuh"

namespace ps {

/* out = bias + the sums of all splits, in order: 4 bytes per split and output from the L2 cache. sums [splits, tokens, p.outputs]; of each
 * row the first `outputs`. */
static __global__ void __launch_bounds__(kRowThreads)
    add_splits_kernel(const __grid_constant__ MatmulParams p, const float *sums, int splits, int64_t outputs) {
  let_next_start(); /* a few small blocks: they are out of its way */
  wait_for_previous();
  const Place place = place_of_thread<1>(outputs);
  if (place.column >= outputs) return;
  const float *sum = sums + place.row * p.outputs + place.column;
  const int64_t step = p.tokens * p.outputs;
  float total = 0;
#pragma unroll 8
  for (int split = 0; split < splits; split++) total += sum[split * step];
  p.out.row(place.row)[place.column] = total + bias_at(p.bias, place.column);
}

static inline void add_splits(Backend &backend, const MatmulParams &params, const float *sums, int splits, int64_t outputs) {
  launch(backend, "Could not launch the sums of matmul", add_splits_kernel, chunk_grid(params.tokens, outputs, 1), kRowThreads, 0, params, sums,
         splits, outputs);
}

}  // namespace ps
