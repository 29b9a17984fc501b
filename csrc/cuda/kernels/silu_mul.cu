/* out = gate / (1 + e^-gate) * up. Bound by 12 bytes per number. */
#include "pack.cuh"

namespace ps {
namespace {

__device__ __forceinline__ float silu(float x) {
  const float limited = max_nan(x, -88.f); /* e^88 is the last power that is finite */
  return limited / (expf(-limited) + 1.f);
}

template <int N>
__global__ void __launch_bounds__(kRowThreads) silu_mul_kernel(SiluMulParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  const Pack<float, N> gate = load_pack<N>(p.gate.row(place.row) + place.column);
  Pack<float, N> out = load_pack<N>(p.up.row(place.row) + place.column);
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] *= silu(gate.value[i]);
  store_pack<N>(p.out.row(place.row) + place.column, out);
}

}  // namespace

void silu_mul(Backend &backend, const SiluMulParams &params) {
  const bool fit = params.width % 4 == 0 && packs(params.gate, 4) && packs(params.up, 4) && packs(params.out, 4);
  with_pack<4>(fit, [&](auto n) {
    launch(backend, "Could not launch silu_mul", silu_mul_kernel<n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params);
  });
}

}  // namespace ps
