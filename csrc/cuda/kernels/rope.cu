/* Rotary position embedding: a table of cosines and sines once per step, then a rotation of each head (halves paired).
 * The rotation is bound by 8 bytes a rotated number; the table is small. */
#include "pack.cuh"

namespace ps {
namespace {

/* A thread an angle. In f64, because f32 holds too few digits of position * frequency beyond a few thousand tokens. */
__global__ void __launch_bounds__(kRowThreads) rope_table_kernel(RopeTableParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<1>(p.pairs);
  if (place.column >= p.pairs) return;
  const double position = p.positions[place.row];
  double scale = p.scale;
  if (p.position_beta != 0) scale *= 1 + p.position_beta * log1p(floor(position / p.position_origin));
  double sine, cosine;
  sincos(position * p.inv_freq[place.column], &sine, &cosine);
  float *out = p.out.row(place.row) + place.column;
  out[0] = static_cast<float>(scale * cosine);
  out[p.pairs] = static_cast<float>(scale * sine);
}

/* A thread N pairs of one head. */
template <int N>
__global__ void __launch_bounds__(kRowThreads) rope_kernel(RopeParams p) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(p.heads * p.pairs);
  if (place.column >= p.heads * p.pairs) return;
  const int column = static_cast<int>(place.column), pairs = static_cast<int>(p.pairs), head = column / pairs, i = column % pairs;
  const float *table = p.table.row(place.row) + i;
  float *x = p.x.row(place.row) + head * p.head_dim + i;
  const Pack<float, N> cosines = load_pack<N>(table), sines = load_pack<N>(table + pairs);
  Pack<float, N> a = load_pack<N>(x), b = load_pack<N>(x + pairs);
#pragma unroll
  for (int j = 0; j < N; j++) {
    const float first = a.value[j], second = b.value[j];
    a.value[j] = first * cosines.value[j] - second * sines.value[j];
    b.value[j] = second * cosines.value[j] + first * sines.value[j];
  }
  store_pack<N>(x, a);
  store_pack<N>(x + pairs, b);
}

}  // namespace

void rope_table(Backend &backend, const RopeTableParams &params) {
  launch(backend, "Could not launch rope_table", rope_table_kernel, chunk_grid(params.tokens, params.pairs, 1), kRowThreads, 0, params);
}

void rope(Backend &backend, const RopeParams &params) {
  if (params.pairs == 0) return;
  const bool fit = params.pairs % 4 == 0 && params.head_dim % 4 == 0 && packs(params.x, 4) && packs(params.table, 4);
  with_pack<4>(fit, [&](auto n) {
    launch(backend, "Could not launch rope", rope_kernel<n()>, chunk_grid(params.tokens, params.heads * params.pairs, n()), kRowThreads, 0, params);
  });
}

}  // namespace ps
