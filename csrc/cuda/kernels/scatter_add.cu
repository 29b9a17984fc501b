/* out[rows[i]] += weights[i] * x[i]. Bound by 12 bytes per number. No row comes twice, so no two threads add to one number. */
#include "pack.cuh"

namespace ps {
namespace {

template <int N>
__global__ void __launch_bounds__(kRowThreads) scatter_add_kernel(ScatterAddParams p, BadIndex *bad) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  const int32_t wanted = p.rows[place.row], row = checked_index(bad, kRows, place.row, wanted, p.tokens);
  if (row != wanted) return; /* row 0 has its own writer */
  const float weight = p.weights[place.row];
  const Pack<float, N> x = load_pack<N>(p.x.row(place.row) + place.column);
  float *target = p.out.row(row) + place.column;
  Pack<float, N> out = load_pack<N>(target);
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] += weight * x.value[i];
  store_pack<N>(target, out);
}

}  // namespace

void scatter_add(Backend &backend, const ScatterAddParams &params) {
  with_pack<4>(params.width % 4 == 0 && packs(params.x, 4) && packs(params.out, 4), [&](auto n) {
    launch(backend, "Could not launch scatter_add", scatter_add_kernel<n()>, chunk_grid(params.count, params.width, n()), kRowThreads, 0, params,
           backend.bad_index);
  });
}

}  // namespace ps
