/* x += y. Bound by 12 bytes per number. */
#include "pack.cuh"

namespace ps {
namespace {

template <int N>
__global__ void __launch_bounds__(kRowThreads) add_kernel(AddParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  float *target = p.x.row(place.row) + place.column;
  Pack<float, N> x = load_pack<N>(target);
  const Pack<float, N> y = load_pack<N>(p.y.row(place.row) + place.column);
#pragma unroll
  for (int i = 0; i < N; i++) x.value[i] += y.value[i];
  store_pack<N>(target, x);
}

}  // namespace

void add(Backend &backend, const AddParams &params) {
  with_pack<4>(params.width % 4 == 0 && packs(params.x, 4) && packs(params.y, 4), [&](auto n) {
    launch(backend, "Could not launch add", add_kernel<n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params);
  });
}

}  // namespace ps
