/* out = x / sqrt(mean(x^2) + eps) * weight, one row of `width` numbers per head; where a y is given, x += y before. Bound by 8 bytes per
 * number (16 with y); the second reading of x comes from the first cache. */
#include <algorithm>

#include "rounded_rows.cuh"

namespace ps {
namespace {

constexpr int kShortWidth = 256;  /* rows up to this width take one warp */
constexpr int kShortRows = 8;     /* rows per block then */
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
__device__ __forceinline__ void scale_row(const float *x, const W *weight, float *out, const RoundedCopy &copy, int64_t row, int64_t width,
                                          float scale, int first, int step) {
  for (int64_t i = int64_t(first) * N; i < width; i += int64_t(step) * N) {
    Pack<float, N> numbers = load_pack<N>(x + i);
    const Pack<float, N> factors = load_pack<N>(weight + i);
#pragma unroll
    for (int j = 0; j < N; j++) numbers.value[j] = numbers.value[j] * scale * factors.value[j];
    store_pack<N>(out + i, numbers);
    copy.store<N>(row, i, numbers);
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

/* The same for a row of no more than one pack per thread: all is asked for at once and stays in registers. */
template <int N, typename W>
__device__ __forceinline__ Pack<float, N> load_sum(float *x, const float *y, const W *weight, bool in, Pack<float, N> &factors) {
  Pack<float, N> numbers{};
  if (!in) return numbers;
  numbers = load_pack<N>(x);
  factors = load_pack<N>(weight);
  if (y == nullptr) return numbers;
  const Pack<float, N> more = load_pack<N>(y);
#pragma unroll
  for (int j = 0; j < N; j++) numbers.value[j] += more.value[j];
  store_pack<N>(x, numbers);
  return numbers;
}

/* Short: a warp per row. Otherwise a block per row. Once: a row is no more than one pack per thread. */
template <typename W, int N, bool Short, bool Once>
__global__ void __launch_bounds__(Short ? kShortRows * kWarp : kMostThreads) rms_norm_kernel(RmsNormParams p, Rows<const float> y, RoundedCopy copy) {
  __shared__ float sums[kWarp];
  if (!Once) wait_for_previous();
  let_next_start();
  const int64_t row = Short ? int64_t(blockIdx.x) * kShortRows + threadIdx.x / kWarp : blockIdx.x;
  if (row >= p.tokens * p.heads) return;
  const int first = Short ? threadIdx.x % kWarp : threadIdx.x, step = Short ? kWarp : blockDim.x;
  const int64_t token = row / p.heads, column = row % p.heads * p.width;
  float *x = const_cast<float *>(p.x.row(token)) + column, *out = p.out.row(token) + column;
  const float *more = y.data ? y.row(token) : nullptr;
  const W *weight = static_cast<const W *>(p.weight.data);
  auto scale_of = [&](float part) {
    const float sum = Short ? warp_sum(part) : block_sum(part, sums);
    return 1.f / sqrtf(sum / static_cast<float>(p.width) + p.eps);
  };
  if constexpr (Once) {
    /* The first time nothing is loaded and nothing stored: while the kernel ahead still runs, the code comes from memory. */
#pragma unroll 1
    for (int time = 0; time < 2; time++) {
      if (time == 1) wait_for_previous();
      const int64_t at = int64_t(first) * N;
      const bool in = time == 1 && at < p.width;
      Pack<float, N> factors{}, numbers = load_sum<N>(x + at, more ? more + at : nullptr, weight + at, in, factors);
      float part = 0;
#pragma unroll
      for (int j = 0; j < N; j++) part += numbers.value[j] * numbers.value[j];
      const float scale = scale_of(part);
#pragma unroll
      for (int j = 0; j < N; j++) numbers.value[j] = numbers.value[j] * scale * factors.value[j];
      if (!in) continue;
      store_pack<N>(out + at, numbers);
      copy.store<N>(row, at, numbers);
    }
  } else {
    if (more) add_row<N>(x, more, p.width, first, step);
    scale_row<N>(x, weight, out, copy, row, p.width, scale_of(sum_squares<N>(x, p.width, first, step)), first, step);
  }
}

void add_rms_norm(Backend &backend, const RmsNormParams &params, const Rows<const float> &y) {
  const int64_t rows = params.tokens * params.heads;
  const RoundedCopy copy = params.heads == 1 ? place_copy(backend, rows, params.width) : RoundedCopy{};
  const bool fit = params.width % 4 == 0 && packs(params.x, 4) && packs_row(params.weight, 4) && packs(params.out, 4) && (!y.data || packs(y, 4));
  with_dtype(params.weight.dtype, [&](auto type) {
    using W = decltype(type);
    with_pack<4>(fit, [&](auto n) {
      const bool is_short = params.width <= kShortWidth;
      const int64_t wanted = ceil_div(ceil_div(params.width, n()), kWarp) * kWarp,
                    threads = is_short ? kShortRows * kWarp : std::min<int64_t>(wanted, kMostThreads);
      const bool once = params.width <= (is_short ? kWarp : threads) * n();
      auto *kernel = is_short ? once ? rms_norm_kernel<W, n(), true, true> : rms_norm_kernel<W, n(), true, false>
                     : once   ? rms_norm_kernel<W, n(), false, true>
                              : rms_norm_kernel<W, n(), false, false>;
      const dim3 grid(static_cast<unsigned>(is_short ? ceil_div(rows, kShortRows) : rows));
      launch(backend, "Could not launch rms_norm", kernel, grid, dim3(static_cast<unsigned>(threads)), 0, params, y, copy);
    });
  });
  note_copy(backend, copy, params.out, rows, params.width);
}

}  // namespace

void rms_norm(Backend &backend, const RmsNormParams &params) { add_rms_norm(backend, params, {}); }

void add_rms_norm(Backend &backend, const AddRmsNormParams &params) { add_rms_norm(backend, params.norm, params.y); }

}  // namespace ps
