/* out = activation(gate) * up: what the gated feed-forward blocks share. Bound by 12 bytes per number. */
#pragma once

#include "pack.cuh"

namespace ps {

template <typename Activation, int N>
__global__ void __launch_bounds__(kRowThreads) gated_kernel(GatedParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  const Pack<float, N> gate = load_pack<N>(p.gate.row(place.row) + place.column);
  Pack<float, N> out = load_pack<N>(p.up.row(place.row) + place.column);
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] *= Activation::of(gate.value[i]);
  store_pack<N>(p.out.row(place.row) + place.column, out);
}

template <typename Activation>
void launch_gated(Backend &backend, const char *failure, const GatedParams &params) {
  const bool fit = params.width % 4 == 0 && packs(params.gate, 4) && packs(params.up, 4) && packs(params.out, 4);
  with_pack<4>(fit, [&](auto n) {
    launch(backend, failure, gated_kernel<Activation, n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params);
  });
}

}  // namespace ps
