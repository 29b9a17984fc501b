/* out = x * weight^T + bias. Up to 8 tokens are bound by the bytes of the weights and go to matvec.cu; more are bound by arithmetic
 * and go to cuBLAS. 16-bit weights then want x in their own dtype: x is rounded here, 6 bytes a number. */
#include "matmul_cublas.h"
#include "matvec.cuh"
#include "pack.cuh"

namespace ps {
namespace {

/* f16 ends at 65504 and loses digits below 6e-5. A token whose largest number lies outside [2^-6, 2^15) is scaled by a power of two
 * into [2^14, 2^15), and finish_kernel takes that back: nothing overflows, and other tokens are rounded as they are. */
__device__ __forceinline__ float choose_scale(float largest) {
  const uint32_t exponent = __float_as_uint(largest) >> 23;
  if (exponent == 0xff || (exponent >= 127 - 6 && exponent < 127 + 15)) return 1.f; /* infinity and NaN stay what they are */
  return __uint_as_float((127 + 14 + 127 - max(exponent, 28u)) << 23);              /* from 28 on, 1 / scale is a normal number too */
}

template <typename W>
struct Rounded {
  W *x;           /* [tokens, stride] */
  int64_t stride; /* a multiple of 8: aligned rows are what fast products take */
  float *undo;    /* [tokens] 1 / scale; f16 only */
};

/* A block a token. */
template <typename W, int N>
__global__ void __launch_bounds__(kRowThreads) round_kernel(Rows<const float> x, int64_t inputs, Rounded<W> out) {
  __shared__ float largest_of_warp[kRowThreads / kWarp];
  wait_for_previous();
  let_next_start();
  const float *source = x.row(blockIdx.x);
  float scale = 1;
  if (std::is_same<W, f16>::value) {
    float largest = 0;
    for (int64_t i = int64_t(threadIdx.x) * N; i < inputs; i += kRowThreads * N) {
      const Pack<float, N> numbers = load_pack<N>(source + i);
#pragma unroll
      for (int j = 0; j < N; j++) largest = max_nan(largest, fabsf(numbers.value[j]));
    }
    largest = warp_max_nan(largest);
    if (threadIdx.x % kWarp == 0) largest_of_warp[threadIdx.x / kWarp] = largest;
    __syncthreads();
    for (int warp = 0; warp < kRowThreads / kWarp; warp++) largest = max_nan(largest, largest_of_warp[warp]);
    scale = choose_scale(largest);
    if (threadIdx.x == 0) out.undo[blockIdx.x] = 1.f / scale;
  }
  W *target = out.x + blockIdx.x * out.stride;
  for (int64_t i = int64_t(threadIdx.x) * N; i < inputs; i += kRowThreads * N) {
    const Pack<float, N> numbers = load_pack<N>(source + i);
    Pack<W, N> rounded;
#pragma unroll
    for (int j = 0; j < N; j++) store_number(&rounded.value[j], numbers.value[j] * scale);
    *reinterpret_cast<Pack<W, N> *>(target + i) = rounded;
  }
}

/* out = out * undo + bias, in place; a token with nothing to do is left alone. undo may be nullptr. */
__global__ void __launch_bounds__(kRowThreads) finish_kernel(MatmulParams p, const float *undo) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<1>(p.outputs);
  const float factor = undo == nullptr ? 1.f : undo[place.row];
  if (place.column >= p.outputs || (factor == 1.f && p.bias.data == nullptr)) return;
  float *out = p.out.row(place.row) + place.column;
  *out = *out * factor + bias_at(p.bias, place.column);
}

template <typename W>
Rounded<W> round_x(Backend &backend, const MatmulParams &params) {
  Rounded<W> out{nullptr, ceil_div(params.inputs, 8) * 8, nullptr};
  const int64_t x_bytes = params.tokens * out.stride * int64_t(sizeof(W));
  char *memory = static_cast<char *>(scratch(backend, x_bytes + params.tokens * int64_t(sizeof(float))));
  out.x = reinterpret_cast<W *>(memory);
  out.undo = std::is_same<W, f16>::value ? reinterpret_cast<float *>(memory + x_bytes) : nullptr;
  with_pack<4>(params.inputs % 4 == 0 && packs(params.x, 4), [&](auto n) {
    const dim3 grid(static_cast<unsigned>(params.tokens));
    launch(backend, "Could not launch the rounding of matmul", round_kernel<W, n()>, grid, kRowThreads, 0, params.x, params.inputs, out);
  });
  return out;
}

void finish(Backend &backend, const MatmulParams &params, const float *undo) {
  if (undo == nullptr && params.bias.data == nullptr) return;
  launch(backend, "Could not launch the bias of matmul", finish_kernel, chunk_grid(params.tokens, params.outputs, 1), kRowThreads, 0, params,
         undo);
}

}  // namespace

void matmul(Backend &backend, const MatmulParams &params) {
  if (params.tokens <= kFewTokens) return matvec(backend, params);
  with_dtype(params.weight.dtype, [&](auto type) {
    using W = decltype(type);
    if constexpr (std::is_same<W, float>::value) {
      matmul_cublas(backend, params, {params.x.data, params.x.stride, PS_F32});
      finish(backend, params, nullptr);
    } else {
      const Rounded<W> rounded = round_x<W>(backend, params);
      matmul_cublas(backend, params, {rounded.x, rounded.stride, params.weight.dtype});
      finish(backend, params, rounded.undo);
    }
  });
}

}  // namespace ps
