/* out = activation(gate) * up: what the gated feed-forward blocks share. Bound by 12 bytes per number. */
#pragma once

#include "rounded_rows.cuh"

namespace ps {

/* a / b for b from 1 to 2^127, to two digits of the last place; without branches, so that several run at once. */
__device__ __forceinline__ float divide_plain(float a, float b) {
  float reciprocal;
  asm("rcp.approx.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return a * reciprocal;
}

struct Silu {
  static __device__ __forceinline__ float of(float x) {
    const float limited = max_nan(x, -88.f); /* e^88 is the last power that is finite */
    return divide_plain(limited, expf(-limited) + 1.f);
  }
};

/* The tanh form. (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) needs one exponential and keeps the digits of small results. */
struct Gelu {
  static __device__ __forceinline__ float of(float x) {
    const float limited = max_nan(x, -10.f); /* gelu(-10) is -1e-37, and e^-2u is finite up to there */
    const float twice_u = limited * fmaf(limited * limited, 0.0713548162726009f, 1.5957691216057308f);
    return divide_plain(limited, expf(-twice_u) + 1.f);
  }
};

template <typename Activation, int N>
__global__ void __launch_bounds__(kRowThreads) gated_kernel(GatedParams p, RoundedCopy copy) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.width);
  if (place.column >= p.width) return;
  const Pack<float, N> gate = load_pack<N>(p.gate.row(place.row) + place.column);
  Pack<float, N> out = load_pack<N>(p.up.row(place.row) + place.column);
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] *= Activation::of(gate.value[i]);
  store_pack<N>(p.out.row(place.row) + place.column, out);
  copy.store<N>(place.row, place.column, out);
}

template <typename Activation>
void launch_gated(Backend &backend, const char *failure, const GatedParams &params) {
  const bool fit = params.width % 4 == 0 && packs(params.gate, 4) && packs(params.up, 4) && packs(params.out, 4);
  const RoundedCopy copy = place_copy(backend, params.tokens, params.width);
  with_pack<4>(fit, [&](auto n) {
    launch(backend, failure, gated_kernel<Activation, n()>, chunk_grid(params.tokens, params.width, n()), kRowThreads, 0, params, copy);
  });
  note_copy(backend, copy, params.out, params.tokens, params.width);
}

}  // namespace ps
