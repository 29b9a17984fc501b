/* Products with weights in blocks: one token by the kernel of matvec_quantized.cuh, few by that of matmul_quantized.cuh, rows beyond the last tile
 * by a plain one. Prompts take rows widened to bf16, which matmul.cu hands to cuBLAS. */
#include "matmul_quantized.h"

#include <algorithm>

#include "dequantize.cuh"
#include "matmul_quantized.cuh"
#include "matvec_quantized.cuh"
#include "product_room.h"

namespace ps {
namespace {

/* A warp one output of all tokens: for the few rows beyond the last tile. */
template <typename F>
__global__ void __launch_bounds__(kWarp) plain_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ BlockRows rows, int64_t first) {
  wait_for_previous();
  let_next_start();
  const int64_t n = first + blockIdx.x, token = blockIdx.y;
  const float *x = p.x.row(token);
  float sum = 0;
  for (int64_t k = threadIdx.x; k < p.inputs; k += kWarp) sum = fmaf(dequantize<F>(rows, n, k), x[k], sum);
  sum = warp_sum(sum);
  if (threadIdx.x == 0) p.out.row(token)[n] = sum + bias_at(p.bias, n);
}

template <typename F>
__global__ void __launch_bounds__(kRowThreads) dequantize_kernel(const __grid_constant__ BlockRows rows, int64_t first, bf16 *out) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<4>(rows.inputs);
  if (place.column >= rows.inputs) return;
  Pack<bf16, 4> numbers;
#pragma unroll
  for (int i = 0; i < 4; i++) store_number(&numbers.value[i], dequantize<F>(rows, first + place.row, place.column + i));
  *reinterpret_cast<Pack<bf16, 4> *>(out + place.row * rows.inputs + place.column) = numbers;
}

/* x of one token, rounded once for all blocks of the product. A block per token. */
template <typename F>
__global__ void __launch_bounds__(kRowThreads)
    round_kernel(const __grid_constant__ MatmulParams p, int64_t subs, const __grid_constant__ PreparedX out) {
  __shared__ uint32_t largest;
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  wait_for_previous();
  let_next_start();
  const ScaledX source(p);
  const int64_t token = blockIdx.x;
  const uint32_t bits = source.largest_bits(token, 0, p.inputs);
  if (threadIdx.x % kWarp == 0) atomicMax(&largest, bits);
  __syncthreads();
  if (threadIdx.x == 0) out.undo[token] = undo_f16_scale(largest);
  for (int64_t piece = threadIdx.x; piece < subs * 4; piece += kRowThreads) {
    const uint4 halves = source.piece<F>(token, piece / 4 * kSubBlock, static_cast<int>(piece % 4), f16_scale(largest));
    store_piece<F, false>(out, static_cast<int>(p.tokens), (piece / 4 * p.tokens + token) * 4 + piece % 4, halves);
  }
}

constexpr int64_t kReservedBytes = 1024; /* static shared memory */

struct Plan {
  int splits, groups;
  int64_t shared_bytes;
};

/* As few splits as fit: one spares add_splits. bytes_of(stages): of shared memory. */
template <typename BytesOf>
Plan fewest_splits(const Backend &backend, int64_t stages, const BytesOf &bytes_of) {
  for (int64_t splits = 1; splits <= stages; splits++) {
    const int64_t bytes = bytes_of(ceil_div(stages, splits));
    if (bytes + kReservedBytes <= backend.shared_bytes) return {static_cast<int>(splits), 0, bytes};
  }
  throw Error(PS_UNSUPPORTED, "The shared memory of this GPU is too small for products with weights in blocks");
}

/* Of few tokens as many blocks per multiprocessor as fit: they hide each other's waits, and none gets two blocks while another has none. */
template <typename F, int Columns>
Plan plan_tiles(const Backend &backend, int64_t tokens, int64_t stages, int64_t tiles) {
  Plan plan = fewest_splits(backend, stages, [&](int64_t share) {
    return kQuantizedRingBytes<F, Columns> + prepared_bytes<F>(share * kStageSubs<F>, tokens) + quantized_sum_bytes<F, Columns>(tokens);
  });
  const int64_t fit = backend.shared_bytes / (plan.shared_bytes + 2 * kReservedBytes);
  const int64_t blocks = Columns > 1 ? 1 : std::clamp<int64_t>(fit, 1, kMostWarps / kWarps<F, false>);
  plan.groups = static_cast<int>(std::clamp<int64_t>(blocks * backend.multiprocessors / plan.splits, 1, tiles));
  return plan;
}

/* Of one token: a block for every multiprocessor. */
template <typename F>
Plan plan_vector(const Backend &backend, int64_t stages) {
  Plan plan = fewest_splits(backend, stages, vector_bytes<F>);
  plan.groups = std::max(backend.multiprocessors / plan.splits, 1);
  return plan;
}

template <typename F>
int64_t stages_of(const MatmulParams &params) {
  return ceil_div(params.inputs / F::kInputs, int64_t(kStageRegions<F>));
}

/* Tiles that blocks share out: of gated products, pairs of tiles. */
int64_t tiles_of(const MatmulParams &params, const Joins &joins) { return params.outputs / kTileRows / (joins.gated() ? 2 : 1); }

template <typename F>
TileLayout layout_of(const MatmulParams &params) {
  return {bytes_of_numbers(params.weight.dtype, params.weight.stride) * kTileRows, static_cast<int>(params.inputs / F::kInputs)};
}

template <typename F, int Columns>
void launch_tiles(Backend &backend, const MatmulParams &params) {
  const int64_t stages = stages_of<F>(params), tiles = params.outputs / kTileRows;
  const Plan plan = plan_tiles<F, Columns>(backend, params.tokens, stages, tiles);
  const int64_t subs = stages * kStageSubs<F>, x_bytes = Columns > 1 ? prepared_bytes<F>(subs, params.tokens) : 0;
  const int64_t sum_bytes = plan.splits > 1 ? plan.splits * params.tokens * params.outputs * int64_t(sizeof(float)) : 0;
  char *memory = x_bytes + sum_bytes > 0 ? static_cast<char *>(scratch(backend, x_bytes + sum_bytes)) : nullptr;
  PreparedX rounded{};
  if (Columns > 1) {
    rounded = place_x<F>(memory, subs, params.tokens);
    launch(backend, "Could not launch the rounding of matmul", round_kernel<F>, dim3(static_cast<unsigned>(params.tokens)), kRowThreads, 0, params,
           subs, rounded);
  }
  float *sums = plan.splits > 1 ? reinterpret_cast<float *>(memory + x_bytes) : nullptr;
  const Shares shares(stages, plan.splits, tiles, plan.groups, sums);
  const dim3 grid(static_cast<unsigned>(plan.groups), static_cast<unsigned>(plan.splits));
  const auto kernel = quantized_kernel<F, Columns>;
  if (backend.capability >= 90) leave_no_cache("Could not launch matmul", kernel);
  launch(backend, "Could not launch matmul", kernel, grid, kThreads<F, false>, plan.shared_bytes, params, shares, layout_of<F>(params), rounded);
  if (plan.splits > 1) add_splits(backend, params, sums, plan.splits, tiles * kTileRows, false);
}

/* Whether the x of one token is read in packs. */
bool fits_vector(const MatmulParams &params) { return packs(params.x.data, 0, sizeof(float), 4); }

template <typename F>
void launch_vector(Backend &backend, const MatmulParams &params, const Joins &joins, const Plan &plan) {
  const int64_t tiles = tiles_of(params, joins);
  float *sums = nullptr;
  if (plan.splits > 1) sums = static_cast<float *>(scratch(backend, plan.splits * params.outputs * int64_t(sizeof(float))));
  const Shares shares(stages_of<F>(params), plan.splits, tiles, plan.groups, sums);
  const dim3 grid(static_cast<unsigned>(plan.groups), static_cast<unsigned>(plan.splits));
  const int64_t shared_bytes = shared_bytes_of(backend, plan.shared_bytes, joins.norm != nullptr);
  const auto kernel = vector_kernel<F>;
  if (backend.capability >= 90) leave_no_cache("Could not launch matmul", kernel);
  launch(backend, "Could not launch matmul", kernel, grid, kThreads<F, true>, shared_bytes, params, joins, shares, layout_of<F>(params));
  if (plan.splits > 1) add_splits(backend, params, sums, plan.splits, tiles * kTileRows, joins.ending == PS_ADD);
}

template <typename F>
void multiply(Backend &backend, const MatmulParams &params) {
  const int64_t tiled = params.outputs / kTileRows * kTileRows;
  if (tiled > 0) {
    if (params.tokens == 1 && fits_vector(params)) launch_vector<F>(backend, params, {}, plan_vector<F>(backend, stages_of<F>(params)));
    else if (params.tokens <= kColumnTokens) launch_tiles<F, 1>(backend, params);
    else launch_tiles<F, 2>(backend, params);
  }
  if (tiled == params.outputs) return;
  const BlockRows rows(params.weight, params.outputs, params.inputs);
  const dim3 grid(static_cast<unsigned>(params.outputs - tiled), static_cast<unsigned>(params.tokens));
  launch(backend, "Could not launch matmul", plain_kernel<F>, grid, kWarp, 0, params, rows, tiled);
}

}  // namespace

void matmul_quantized(Backend &backend, const MatmulParams &params) {
  with_format(params.weight.dtype, [&](auto format) {
    using F = decltype(format);
    multiply<F>(backend, params);
  });
}

bool fused_matmul_quantized(Backend &backend, const FusedMatmulParams &params) {
  const MatmulParams &matmul = params.matmul;
  const Joins joins{params.norm.data, params.norm.dtype, params.eps, params.ending};
  if (matmul.tokens != 1 || !fits_vector(matmul) || matmul.outputs % (joins.gated() ? 2 * kTileRows : kTileRows) != 0) return false;
  if (joins.norm != nullptr && !packs_row(params.norm, 4)) return false;
  if (joins.gated() && bytes_of_numbers(matmul.weight.dtype, matmul.weight.stride) * matmul.outputs > INT32_MAX) return false;
  bool done = false;
  with_format(matmul.weight.dtype, [&](auto format) {
    using F = decltype(format);
    const Plan plan = plan_vector<F>(backend, stages_of<F>(matmul));
    if (plan.splits > 1 && (joins.norm != nullptr || joins.gated())) return; /* a block then sees a part of x only */
    launch_vector<F>(backend, matmul, joins, plan);
    done = true;
  });
  return done;
}

void dequantize_rows(Backend &backend, const MatmulParams &params, int64_t first, int64_t rows, void *out) {
  const BlockRows all(params.weight, params.outputs, params.inputs);
  with_format(params.weight.dtype, [&](auto format) {
    using F = decltype(format);
    launch(backend, "Could not launch the widening of weights", dequantize_kernel<F>, chunk_grid(rows, params.inputs, 4), kRowThreads, 0, all, first,
           static_cast<bf16 *>(out));
  });
}

}  // namespace ps
