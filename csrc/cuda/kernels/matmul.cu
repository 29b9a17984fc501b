/* out = x * weight^T + bias. Up to 8 tokens are bound by the bytes of the weights and go to matvec.cu; up to 64 go to matmul_batch.cu where that
 * runs, all others to cuBLAS. For both, 16-bit weights require x in their own dtype: it is rounded, 6 bytes per number. Short prompts, above
 * kBatchTokens and up to kStackedTokens, put x in twice, as rows of rounded numbers and as rows of what rounding left: such products are still mostly
 * bound by the weights, and keep the precision of f32. */
#include <algorithm>

#include "matmul_batch.h"
#include "matmul_cublas.h"
#include "matmul_quantized.h"
#include "rounded_rows.cuh"

namespace ps {
namespace {

constexpr int64_t kStackedBytes = int64_t(64) << 20; /* of sums at once; wider weights are taken in slices */
constexpr int64_t kWidenedBytes = int64_t(64) << 20; /* of weights in blocks that are widened at once */
constexpr int64_t kLeastNormed = 2048;               /* of fewer numbers, the norm takes no longer than the weights of the product behind it */
constexpr int64_t kAligned = 256;                    /* bytes that parts of scratch memory are aligned to */
constexpr int64_t kSliceOutputs = 256;               /* a slice is a multiple of it: whole tiles of cuBLAS */

/* f16 ends at 65504 and loses digits below 6e-5. A token whose largest number lies outside [2^-6, 2^15), or of which two parts are
 * wanted, is scaled by a power of two into [2^14, 2^15), and the last kernel takes that back: nothing overflows, and other tokens are
 * rounded as they are. */
__device__ __forceinline__ float choose_scale(float largest, bool two_parts) {
  const uint32_t exponent = __float_as_uint(largest) >> 23;
  if (exponent == 0xff) return 1.f; /* infinity and NaN stay what they are */
  if (!two_parts && exponent >= 127 - 6 && exponent < 127 + 15) return 1.f;
  return __uint_as_float((127 + 14 + 127 - max(exponent, 28u)) << 23); /* from 28 on, 1 / scale is a normal number too */
}

template <typename W>
struct Rounded {
  W *x;           /* [tokens, stride] */
  W *rest;        /* [tokens, stride] what rounding left of x, right behind it; nullptr if it is not needed */
  int64_t stride; /* a multiple of 8: aligned rows are what fast products take */
  float *undo;    /* [tokens] 1 / scale; f16 only */
};

/* Rounds N numbers from `source` on, times scale, to place `at` of both parts. */
template <typename W, int N>
__device__ __forceinline__ void round_pack(const float *source, float scale, const Rounded<W> &out, int64_t at) {
  const Pack<float, N> numbers = load_pack<N>(source);
  Pack<W, N> rounded, rest;
#pragma unroll
  for (int j = 0; j < N; j++) {
    const float number = numbers.value[j] * scale;
    store_number(&rounded.value[j], number);
    const float left = number - to_float(rounded.value[j]);
    store_number(&rest.value[j], isfinite(left) ? left : 0.f); /* infinity and NaN go to the first part */
  }
  *reinterpret_cast<Pack<W, N> *>(out.x + at) = rounded;
  if (out.rest != nullptr) *reinterpret_cast<Pack<W, N> *>(out.rest + at) = rest;
}

/* A thread N numbers of a token. */
template <typename W, int N>
__global__ void __launch_bounds__(kRowThreads) round_kernel(Rows<const float> x, int64_t inputs, Rounded<W> out) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(inputs);
  if (place.column < inputs) round_pack<W, N>(x.row(place.row) + place.column, 1.f, out, place.row * out.stride + place.column);
}

/* With a scale: a block per token, because it needs the largest number first. */
template <typename W, int N>
__global__ void __launch_bounds__(kRowThreads) scale_and_round_kernel(Rows<const float> x, int64_t inputs, Rounded<W> out) {
  __shared__ float largest_of_warp[kRowThreads / kWarp];
  wait_for_previous();
  let_next_start();
  const float *source = x.row(blockIdx.x);
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
  const float scale = choose_scale(largest, out.rest != nullptr);
  if (threadIdx.x == 0) out.undo[blockIdx.x] = 1.f / scale;
  for (int64_t i = int64_t(threadIdx.x) * N; i < inputs; i += kRowThreads * N) {
    round_pack<W, N>(source + i, scale, out, blockIdx.x * out.stride + i);
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

/* Outputs [first, first + width) of all tokens: the sums of both parts, plus bias. sums [2 * tokens, width]. */
template <int N>
__global__ void __launch_bounds__(kRowThreads) add_parts_kernel(MatmulParams p, const float *sums, const float *undo, int64_t first, int64_t width) {
  wait_for_previous();
  let_next_start();
  const Place place = place_of_thread<N>(width);
  if (place.column >= width) return;
  const float factor = undo == nullptr ? 1.f : undo[place.row];
  Pack<float, N> out = load_pack<N>(sums + place.row * width + place.column);
  const Pack<float, N> rest = load_pack<N>(sums + (p.tokens + place.row) * width + place.column);
#pragma unroll
  for (int i = 0; i < N; i++) out.value[i] = (out.value[i] + rest.value[i]) * factor + bias_at(p.bias, first + place.column + i);
  store_pack<N>(p.out.row(place.row) + first + place.column, out);
}

template <typename W>
void round_x(Backend &backend, const MatmulParams &params, const Rounded<W> &out) {
  const bool is_copy = std::is_same<W, bf16>::value && out.rest == nullptr;
  backend.rounds_rows = is_copy;
  if (is_copy && copy_of(backend, params) == out.x) return;
  with_pack<4>(params.inputs % 4 == 0 && packs(params.x, 4), [&](auto n) {
    const char *what = "Could not launch the rounding of matmul";
    if constexpr (std::is_same<W, f16>::value) {
      const dim3 grid(static_cast<unsigned>(params.tokens));
      launch(backend, what, scale_and_round_kernel<W, n()>, grid, kRowThreads, 0, params.x, params.inputs, out);
    } else {
      const dim3 grid = chunk_grid(params.tokens, params.inputs, n());
      launch(backend, what, round_kernel<W, n()>, grid, kRowThreads, 0, params.x, params.inputs, out);
    }
  });
}

void finish(Backend &backend, const MatmulParams &params, const float *undo) {
  if (undo == nullptr && params.bias.data == nullptr) return;
  launch(backend, "Could not launch the bias of matmul", finish_kernel, chunk_grid(params.tokens, params.outputs, 1), kRowThreads, 0, params, undo);
}

int64_t aligned(int64_t bytes) { return ceil_div(bytes, kAligned) * kAligned; }

/* Memory for `parts` parts of x, with `more` bytes behind them for `sums`. */
template <typename W>
Rounded<W> place_rounded(Backend &backend, const MatmulParams &params, int64_t parts, int64_t more, float **sums) {
  const int64_t stride = rounded_stride(params.inputs), numbers = params.tokens * stride;
  const int64_t x_bytes = aligned(parts * numbers * int64_t(sizeof(W))), undo_bytes = aligned(params.tokens * int64_t(sizeof(float)));
  char *memory = static_cast<char *>(scratch(backend, x_bytes + undo_bytes + more));
  W *x = reinterpret_cast<W *>(memory);
  if (sums != nullptr) *sums = reinterpret_cast<float *>(memory + x_bytes + undo_bytes);
  float *undo = std::is_same<W, f16>::value ? reinterpret_cast<float *>(memory + x_bytes) : nullptr;
  return {x, parts == 2 ? x + numbers : nullptr, stride, undo};
}

/* x rounded: where its copy lies, else at the start of scratch memory. */
template <typename W>
Rounded<W> rounded_x(Backend &backend, const MatmulParams &params) {
  Rounded<W> rounded = place_rounded<W>(backend, params, 1, 0, nullptr);
  if (void *copy = copy_of(backend, params); copy != nullptr && std::is_same<W, bf16>::value) rounded.x = static_cast<W *>(copy);
  round_x(backend, params, rounded);
  return rounded;
}

template <typename W>
void multiply_rounded(Backend &backend, const MatmulParams &params) {
  const Rounded<W> rounded = rounded_x<W>(backend, params);
  if (takes_batch(backend, params, PS_STORE)) {
    matmul_batch(backend, params, {rounded.x, rounded.stride, rounded.undo, {}}, PS_STORE, {});
    return;
  }
  matmul_cublas(backend, params, {rounded.x, rounded.stride, params.weight.dtype});
  finish(backend, params, rounded.undo);
}

/* Scratch memory of so many bytes apart from [used, used + used_bytes), which may lie in it. */
char *scratch_apart(Backend &backend, int64_t bytes, const void *used, int64_t used_bytes) {
  char *const memory = static_cast<char *>(scratch(backend, 2 * bytes + used_bytes + kAligned));
  const char *const begin = static_cast<const char *>(used);
  const int64_t offset = begin - memory;
  const bool inside = offset > -used_bytes && offset < bytes;
  return inside ? memory + aligned(offset + used_bytes) : memory;
}

/* The answer is left rounded behind x, for the product that takes it. */
template <typename W>
void multiply_gated(Backend &backend, const MatmulParams &params, ps_ending ending) {
  constexpr bool kCopies = std::is_same<W, bf16>::value;
  const int64_t width = params.outputs / 2, stride = rounded_stride(width);
  float *behind = nullptr;
  const Rounded<W> rounded = place_rounded<W>(backend, params, 1, kCopies ? params.tokens * stride * int64_t(sizeof(bf16)) : 0, &behind);
  round_x(backend, params, rounded);
  const RoundedCopy copy{kCopies ? reinterpret_cast<bf16 *>(behind) : nullptr, stride};
  matmul_batch(backend, params, {rounded.x, rounded.stride, rounded.undo, {}}, ending, copy);
  note_copy(backend, copy, params.out, params.tokens, width);
}

template <typename W>
void multiply_stacked(Backend &backend, const MatmulParams &params) {
  const int64_t row_bytes = 2 * params.tokens * int64_t(sizeof(float)); /* of sums, an output */
  const int64_t slice = std::min(params.outputs, kStackedBytes / row_bytes / kSliceOutputs * kSliceOutputs);
  static_assert(kStackedBytes >= kSliceOutputs * 2 * kStackedTokens * int64_t(sizeof(float)), "A slice holds at least one tile");
  float *sums = nullptr;
  const Rounded<W> rounded = place_rounded<W>(backend, params, 2, slice * row_bytes, &sums);
  round_x(backend, params, rounded);
  for (int64_t first = 0; first < params.outputs; first += slice) {
    MatmulParams product = params;
    product.tokens = 2 * params.tokens;
    product.outputs = std::min(slice, params.outputs - first);
    product.weight.data = static_cast<const W *>(params.weight.data) + first * params.weight.stride;
    product.out = {sums, product.outputs};
    matmul_cublas(backend, product, {rounded.x, rounded.stride, params.weight.dtype});
    with_pack<4>(product.outputs % 4 == 0 && packs(params.out, 4), [&](auto n) {
      launch(backend, "Could not launch the sums of matmul", add_parts_kernel<n()>, chunk_grid(params.tokens, product.outputs, n()), kRowThreads, 0,
             params, sums, rounded.undo, first, product.outputs);
    });
  }
}

/* Weights in blocks: slices of rows widened to bf16, one after the other. */
void multiply_widened(Backend &backend, const MatmulParams &params) {
  const int64_t row_bytes = params.inputs * int64_t(sizeof(bf16));
  const int64_t slice = std::min(params.outputs, std::max<int64_t>(kSliceOutputs, kWidenedBytes / row_bytes / kSliceOutputs * kSliceOutputs));
  float *memory = nullptr;
  const Rounded<bf16> rounded = place_rounded<bf16>(backend, params, 1, slice * row_bytes, &memory);
  round_x(backend, params, rounded);
  for (int64_t first = 0; first < params.outputs; first += slice) {
    MatmulParams product = params;
    product.outputs = std::min(slice, params.outputs - first);
    product.weight = {memory, params.inputs, PS_BF16};
    product.out.data += first;
    dequantize_rows(backend, params, first, product.outputs, memory);
    matmul_cublas(backend, product, {rounded.x, rounded.stride, PS_BF16});
  }
  finish(backend, params, nullptr);
}

}  // namespace

bool gated_matmul(Backend &backend, const MatmulParams &params, ps_ending ending) {
  if (params.tokens <= kFewTokens || !takes_batch(backend, params, ending)) return false;
  if (params.weight.dtype == PS_F16) multiply_gated<f16>(backend, params, ending);
  else multiply_gated<bf16>(backend, params, ending);
  return true;
}

bool adding_matmul(Backend &backend, const FusedMatmulParams &params) {
  const MatmulParams &p = params.matmul;
  if (p.tokens <= kFewTokens || p.outputs < kLeastNormed || !takes_batch(backend, p, PS_ADD)) return false;
  const Rounded<bf16> rounded = rounded_x<bf16>(backend, p);
  const int64_t stride = rounded_stride(p.outputs), copy_bytes = aligned(p.tokens * stride * int64_t(sizeof(bf16)));
  const int64_t bytes = copy_bytes + most_square_parts(p) * p.tokens * int64_t(sizeof(float));
  char *const memory = scratch_apart(backend, bytes, rounded.x, p.tokens * rounded.stride * int64_t(sizeof(bf16)));
  const RoundedCopy copy{reinterpret_cast<bf16 *>(memory), stride};
  float *const squares = reinterpret_cast<float *>(memory + copy_bytes);
  const int32_t parts = matmul_batch(backend, p, {rounded.x, rounded.stride, nullptr, {}}, PS_ADD, copy, {params.next_norm, squares});
  backend.normed = {p.out.data, p.out.stride, p.tokens, p.outputs, params.next_norm.data, params.eps, {}, copy.x, squares, parts};
  return true;
}

bool normed_matmul(Backend &backend, const FusedMatmulParams &params) {
  const MatmulParams &p = params.matmul;
  if (params.ending == PS_ADD || p.weight.dtype != PS_BF16 || !takes_batch(backend, p, params.ending)) return false;
  const NormedRows normed = backend.normed;
  const RoundedX x{normed.weighted, rounded_stride(p.inputs), nullptr, normed};
  backend.rounds_rows = true;
  if (params.ending == PS_STORE) {
    matmul_batch(backend, p, x, PS_STORE, {});
    return true;
  }
  const int64_t width = p.outputs / 2, stride = rounded_stride(width);
  const char *const used = static_cast<const char *>(normed.weighted); /* the squares lie behind */
  const int64_t used_bytes = reinterpret_cast<const char *>(normed.squares + normed.parts * p.tokens) - used;
  const RoundedCopy copy{reinterpret_cast<bf16 *>(scratch_apart(backend, p.tokens * stride * int64_t(sizeof(bf16)), used, used_bytes)), stride};
  matmul_batch(backend, p, x, params.ending, copy);
  note_copy(backend, copy, p.out, p.tokens, width);
  return true;
}

void matmul(Backend &backend, const MatmulParams &params) {
  if (is_block_format(params.weight.dtype)) {
    return params.tokens <= kQuantizedTokens ? matmul_quantized(backend, params) : multiply_widened(backend, params);
  }
  if (params.tokens <= kFewTokens) return matvec(backend, params);
  with_dtype(params.weight.dtype, [&](auto type) {
    using W = decltype(type);
    if constexpr (std::is_same<W, float>::value) {
      matmul_cublas(backend, params, {params.x.data, params.x.stride, PS_F32});
      finish(backend, params, nullptr);
    } else if (is_stacked(params.tokens)) {
      multiply_stacked<W>(backend, params);
    } else {
      multiply_rounded<W>(backend, params);
    }
  });
}

}  // namespace ps
