/* out = x / sqrt(mean(x^2) + eps) * weight, one row of `width` numbers a head; where a y is given, x += y before. Bound by 8 bytes a
 * number (16 with y); the second reading of x comes from the first cache. */
#include "pack.cuh"

namespace ps {
namespace {

constexpr int kShortWidth = 256;  /* rows up to this width take one warp */
constexpr int kShortRows = 8;     /* rows a block then */
constexpr int kMostThreads = 1024;

/* Threads [first, first + step, ...) of a row: the sum of their squares. */
template <int N>
__device__ __forceinline__ float sum_squares(const float *x, int64_t width, int first, int step) {
  float sum = 0;
  for (int64_t i = int64_t(first) * N; i < width; i += int64_t(step) * N) {
    const Pack<float, N> numbers = load_pack<N>(x + i);
#pragma unroll
    for (int j = 0; j < N; j++) sum += numbers.value[j] * numbers.value[j];
  }
  return sum;
}

template <int N, typename W>
__device__ __forceinline__ void scale_row(const float *x, const W *weight, float *out, int64_t width, float scale, int first, int step) {
  for (int64_t i = int64_t(first) * N; i < width; i += int64_t(step) * N) {
    Pack<float, N> numbers = load_pack<N>(x + i);
    const Pack<float, N> factors = load_pack<N>(weight + i);
#pragma unroll
    for (int j = 0; j < N; j++) numbers.value[j] = numbers.value[j] * scale * factors.value[j];
    store_pack<N>(out + i, numbers);
  }
}

/* x += y by the threads that read those places of x later. */
template <int N>
__device__ __forceinline__ void add_row(float *x, const float *y, int64_t width, int first, int step) {
  for (int64_t i = int64_t(first) * N; i < width; i += int64_t(step) * N) {
    Pack<float, N> sum = load_pack<N>(x + i);
    const Pack<float, N> more = load_pack<N>(y + i);
#pragma unroll
    for (int j = 0; j < N; j++) sum.value[j] += more.value[j];
    store_pack<N>(x + i, sum);
  }
}

/* Short: a warp a row. Otherwise a block a row. */
template <typename W, int N, bool Short>
__global__ void __launch_bounds__(Short ? kShortRows *kWarp : kMostThreads) rms_norm_kernel(RmsNormParams p, Rows<const float> y) {
  __shared__ float sums[kWarp];
  wait_for_previous();
  let_next_start();
  const int64_t row = Short ? int64_t(blockIdx.x) * kShortRows + threadIdx.x / kWarp : blockIdx.x;
  if (row >= p.tokens * p.heads) return;
  const int first = Short ? threadIdx.x % kWarp : threadIdx.x, step = Short ? kWarp : blockDim.x;
  const int64_t token = row / p.heads, column = row % p.heads * p.width;
  const float *x = p.x.row(token) + column;
  if (y.data) add_row<N>(const_cast<float *>(x), y.row(token), p.width, first, step);
  const float part = sum_squares<N>(x, p.width, first, step);
  const float sum = Short ? warp_sum(part) : block_sum(part, sums);
  const float scale = 1.f / sqrtf(sum / static_cast<float>(p.width) + p.eps);
  scale_row<N>(x, static_cast<const W *>(p.weight.data), p.out.row(token) + column, p.width, scale, first, step);
}


void add_rms_norm(Backend &backend, const RmsNormParams &params, const Rows<const float> &y) {
  const int64_t rows = params.tokens * params.heads;
  const bool fit = params.width % 4 == 0 && packs(params.x, 4) && packs(params.weight, 4) && packs(params.out, 4) && (!y.data || packs(y, 4));
  with_dtype(params.weight.dtype, [&](auto type) {
    using W = decltype(type);
    with_pack<4>(fit, [&](auto n) {
      if (params.width <= kShortWidth) {
        launch(backend, "Could not launch rms_norm", rms_norm_kernel<W, n(), true>, dim3(static_cast<unsigned>(ceil_div(rows, kShortRows))),
               kShortRows * kWarp, 0, params, y);
      } else {
        const int64_t wanted = ceil_div(ceil_div(params.width, n()), kWarp) * kWarp;
        launch(backend, "Could not launch rms_norm", rms_norm_kernel<W, n(), false>, dim3(static_cast<unsigned>(rows)),
               static_cast<unsigned>(wanted < kMostThreads ? wanted : kMostThreads), 0, params, y);
      }
    });
  });
}

}  // namespace

void rms_norm(Backend &backend, const RmsNormParams &params) { add_rms_norm(backend, params, {}); }

void add_rms_norm(Backend &backend, const AddRmsNormParams &params) { add_rms_norm(backend, params.norm, params.y); }

}  // namespace ps
