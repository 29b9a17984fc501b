/* x *= factor. Bound by 8 bytes per number. */
#include "pack.cuh"

namespace ps {
namespace {

template <int N>
__global__ void __launch_bounds__(kRowThreads) scale_kernel(ScaleParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  float *target = p.x.row(place.row) + place.column;
  Pack<float, N> x = load_pack<N>(target);
#pragma unroll
  for (int i = 0; i < N; i++) x.value[i] *= p.factor;
  store_pack<N>(target, x);
}

}  // namespace

void scale(Backend &backend, const ScaleParams &params) {
  with_pack<4>(params.width % 4 == 0 && packs(params.x, 4), [&](auto n) {
    launch(backend, "Could not launch scale", scale_kernel<n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params);
  });
}

}  // namespace ps
