/* out = x * weight^T + bias for 1 to 8 tokens. Bound by the bytes of the weights: 16-bit weights in aligned rows go through
 * matvec_stream.cuh, all others through the plain kernel here. */
#include "matvec.cuh"

#include "matvec_stream.cuh"
#include "pack.cuh"

namespace ps {
namespace {

constexpr int kPlainWarps = 4;
constexpr int kPlainOutputs = 2; /* rows of weights a warp: x then comes from the first cache half as often */

/* A warp kPlainOutputs outputs of all tokens, N inputs a lane and load. f32 weights may be the result of the kernel before. */
template <typename W, int Tokens, int N>
__global__ void __launch_bounds__(kPlainWarps *kWarp) plain_kernel(const __grid_constant__ MatmulParams p) {
  wait_for_previous();
  let_next_start();
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t(blockIdx.x) * kPlainWarps + threadIdx.x / kWarp) * kPlainOutputs;
  if (first >= p.outputs) return;
  const W *weight[kPlainOutputs];
  const float *x[Tokens];
#pragma unroll
  for (int i = 0; i < kPlainOutputs; i++) { /* rows past the last are read as the last one and not stored */
    weight[i] = static_cast<const W *>(p.weight.data) + (first + i < p.outputs ? first + i : p.outputs - 1) * p.weight.stride;
  }
#pragma unroll
  for (int t = 0; t < Tokens; t++) x[t] = p.x.row(t < p.tokens ? t : p.tokens - 1);
  float sum[kPlainOutputs][Tokens] = {};
#pragma unroll 2
  for (int64_t k = int64_t(lane) * N; k < p.inputs; k += kWarp * N) {
    Pack<float, N> weights[kPlainOutputs];
#pragma unroll
    for (int i = 0; i < kPlainOutputs; i++) weights[i] = load_pack<N>(weight[i] + k);
#pragma unroll
    for (int t = 0; t < Tokens; t++) {
      const Pack<float, N> numbers = load_pack<N>(x[t] + k);
#pragma unroll
      for (int i = 0; i < kPlainOutputs; i++) {
#pragma unroll
        for (int j = 0; j < N; j++) sum[i][t] = fmaf(weights[i].value[j], numbers.value[j], sum[i][t]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPlainOutputs; i++) {
#pragma unroll
    for (int t = 0; t < Tokens; t++) {
      const float total = warp_sum(sum[i][t]);
      if (lane == 0 && t < p.tokens && first + i < p.outputs) p.out.row(t)[first + i] = total + bias_at(p.bias, first + i);
    }
  }
}

template <typename W, int Tokens>
void launch_plain(Backend &backend, const MatmulParams &params) {
  const dim3 grid(static_cast<unsigned>(ceil_div(params.outputs, kPlainWarps * kPlainOutputs)));
  constexpr int kNumbers = std::is_same<W, float>::value ? 4 : 1; /* aligned 16-bit rows do not come here */
  const bool fit = params.inputs % kNumbers == 0 && packs(params.weight, kNumbers) && packs(params.x, kNumbers);
  with_pack<kNumbers>(fit, [&](auto n) {
    launch(backend, "Could not launch matmul", plain_kernel<W, Tokens, n()>, grid, kPlainWarps * kWarp, 0, params);
  });
}

void plain(Backend &backend, const MatmulParams &params) {
  with_dtype(params.weight.dtype, [&](auto type) {
    using W = decltype(type);
    if (params.tokens == 1) launch_plain<W, 1>(backend, params);
    else if (params.tokens == 2) launch_plain<W, 2>(backend, params);
    else if (params.tokens <= 4) launch_plain<W, 4>(backend, params);
    else launch_plain<W, 8>(backend, params);
  });
}

bool can_stream(const MatmulParams &params) {
  return params.weight.dtype != PS_F32 && params.inputs % 8 == 0 && packs(params.weight, 8) && packs(params.x, 4);
}

/* Tiles a block takes at once. More of them read x less often, but must not leave multiprocessors idle in the last round. */
int choose_tiles(int64_t outputs, int multiprocessors) {
  int best = 1;
  int64_t fewest = INT64_MAX;
  for (int tiles = 1; tiles <= 3; tiles++) {
    const int64_t rounds = ceil_div(ceil_div(outputs, kTileOutputs * tiles), multiprocessors) * tiles;
    if (rounds <= fewest) fewest = rounds, best = tiles;
  }
  return best;
}

template <int Tiles>
void launch_stream(Backend &backend, const MatmulParams &params) {
  const int64_t shared_bytes = stream_shared_bytes(Tiles, kDepth<Tiles>, params.tokens);
  if (shared_bytes > backend.shared_bytes && params.tokens > 1) { /* GPUs with 99 KiB: two halves of the tokens */
    MatmulParams first = params, second = params;
    first.tokens = params.tokens / 2;
    second.tokens = params.tokens - first.tokens;
    second.x.data += first.tokens * params.x.stride;
    second.out.data += first.tokens * params.out.stride;
    launch_stream<Tiles>(backend, first);
    return launch_stream<Tiles>(backend, second);
  }
  const int64_t tiles = ceil_div(params.outputs, kTileOutputs * Tiles);
  const int64_t most = int64_t(kStreamBlocks) * backend.multiprocessors;
  const dim3 grid(static_cast<unsigned>(tiles < most ? tiles : most));
  const auto kernel = params.weight.dtype == PS_BF16 ? stream_kernel<bf16, Tiles> : stream_kernel<f16, Tiles>;
  launch(backend, "Could not launch matmul", kernel, grid, kStreamThreads, shared_bytes, params);
}

}  // namespace

void matvec(Backend &backend, const MatmulParams &params) {
  if (!can_stream(params)) return plain(backend, params);
  const int tiles = choose_tiles(params.outputs, backend.multiprocessors);
  if (tiles == 1) launch_stream<1>(backend, params);
  else if (tiles == 2) launch_stream<2>(backend, params);
  else launch_stream<3>(backend, params);
}

}  // namespace ps
