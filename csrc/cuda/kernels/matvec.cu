/* out = x * weight^T + bias for 1 to 8 tokens. Bound by the bytes of the weights: 16-bit weights in aligned rows go through
 * matvec_stream.cuh, all others through the plain kernel here. */
#include "matvec.cuh"

#include <algorithm>

#include "matvec_stream.cuh"
#include "product_room.h"

namespace ps {
namespace {

constexpr int kPlainWarps = 4;
constexpr int kPlainOutputs = 2; /* rows of weights per warp: x then comes from the first cache half as often */

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

constexpr int64_t kMostInputs = int64_t(1) << 30; /* the kernel counts them in 32 bits */

bool can_stream(const MatmulParams &params) {
  const bool fit = params.inputs % 8 == 0 && packs(params.weight, 8) && packs(params.x, 4);
  return fit && params.weight.dtype != PS_F32 && params.inputs <= kMostInputs;
}

/* How matvec_stream.cuh goes about a product. */
struct Plan {
  int depth; /* of the ring; 0: does not fit */
  int splits, groups;
  int64_t shared_bytes;
};

constexpr int kDepths[] = {10, 7, 5};
constexpr int kDeepEnough = 7; /* 56 KiB: what the memory delivers to a multiprocessor while a product ends and the next one starts */

int64_t tiles_of(const MatmulParams &params, const Joins &joins) { return ceil_div(params.outputs, joins.gated() ? kTurnOutputs : kTileOutputs); }

Plan plan_splits(const Backend &backend, const MatmulParams &params, const Joins &joins, int64_t splits) {
  const int64_t chunks = ceil_div(ceil_div(params.inputs, kChunk), splits);
  const bool is_bf16 = params.weight.dtype == PS_BF16;
  const int64_t beside_ring = x_bytes(chunks, params.tokens, is_bf16 ? kParts<bf16> : kParts<f16>) +
                              (is_bf16 ? 0 : undo_bytes(chunks, params.tokens)) + warp_sum_bytes(params.tokens);
  const int64_t groups = std::clamp<int64_t>(backend.multiprocessors / splits, 1, tiles_of(params, joins));
  for (const int depth : kDepths) {
    const int64_t bytes = ring_bytes(depth) + beside_ring;
    if (bytes <= shared_budget(backend, joins.norm != nullptr)) return {depth, static_cast<int>(splits), static_cast<int>(groups), bytes};
  }
  return {};
}

/* One split where x fits, for that spares add_splits_kernel. Otherwise as few as leave room for a deep ring and give nearly every
 * multiprocessor a block. */
Plan make_plan(const Backend &backend, const MatmulParams &params, const Joins &joins) {
  const int64_t chunks = ceil_div(params.inputs, kChunk);
  Plan best = plan_splits(backend, params, joins, 1);
  if (best.depth > 0) return best;
  for (int64_t splits = 2; splits <= chunks; splits++) {
    const Plan plan = plan_splits(backend, params, joins, splits);
    if (plan.depth < kDeepEnough) continue;
    if (best.depth == 0 || plan.splits * plan.groups > best.splits * best.groups) best = plan;
    if (plan.splits * plan.groups * 16 >= backend.multiprocessors * 15) break;
  }
  return best;
}

template <typename W>
auto stream_kernel_of(int depth) {
  static_assert(kDepths[0] == 10 && kDepths[1] == 7 && kDepths[2] == 5, "One kernel for each depth");
  return depth == 10 ? stream_kernel<W, 10> : depth == 7 ? stream_kernel<W, 7> : stream_kernel<W, 5>;
}

void stream(Backend &backend, const MatmulParams &params, const Joins &joins, const Plan &plan) {
  float *sums = nullptr;
  if (plan.splits > 1) sums = static_cast<float *>(scratch(backend, plan.splits * params.tokens * params.outputs * int64_t(sizeof(float))));
  const int blocks =
      std::max(plan.groups, backend.multiprocessors / plan.splits); /* one for every multiprocessor, even where there are fewer tiles */
  const Shares shares(ceil_div(params.inputs, kChunk), plan.splits, tiles_of(params, joins), blocks, sums);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(plan.splits));
  const auto kernel = params.weight.dtype == PS_BF16 ? stream_kernel_of<bf16>(plan.depth) : stream_kernel_of<f16>(plan.depth);
  const int64_t shared_bytes = shared_bytes_of(backend, plan.shared_bytes, joins.norm != nullptr);
  if (backend.capability >= 90) leave_no_cache("Could not launch matmul", kernel);
  launch(backend, "Could not launch matmul", kernel, grid, kStreamThreads, shared_bytes, params, joins, shares);
  if (plan.splits == 1) return;
  add_splits(backend, params, sums, plan.splits, params.outputs, joins.ending == PS_ADD);
}

}  // namespace

void matvec(Backend &backend, const MatmulParams &params) {
  if (!can_stream(params)) return plain(backend, params);
  stream(backend, params, {}, make_plan(backend, params, {}));
}

bool fused_matvec(Backend &backend, const FusedMatmulParams &params) {
  const MatmulParams &matmul = params.matmul;
  const Joins joins{params.norm.data, params.norm.dtype, params.eps, params.ending};
  if (matmul.tokens != 1 || !can_stream(matmul) || (joins.norm != nullptr && !packs_row(params.norm, 8))) return false;
  if (joins.gated() && matmul.outputs % kTurnOutputs != 0) return false;
  const Plan plan = make_plan(backend, matmul, joins);
  if (plan.splits > 1 && (joins.norm != nullptr || joins.gated())) return false; /* a block then sees a part of x only */
  stream(backend, matmul, joins, plan);
  return true;
}

}  // namespace ps
