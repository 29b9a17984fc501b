/* What a product of one token does besides multiplying: the norm of its x, and what becomes of its outputs. The kernels around it would
 * take longer to start than to run. */
#pragma once

#include "gated.cuh"
#include "prefetch.cuh"

namespace ps {

struct Joins {
  const void *norm; /* [inputs], aligned to 16 bytes, or nullptr */
  ps_dtype norm_dtype;
  float eps;
  ps_ending ending;

  PS_HOST_DEVICE bool gated() const { return ending == PS_SILU_MUL || ending == PS_GELU_MUL; }

  /* Requests the norm's weights from memory. They may be read before they are written, but not the numbers that come then. */
  __device__ __forceinline__ void prefetch(int64_t inputs) const {
    constexpr int kLine = 128;
    if (norm == nullptr) return;
    const int64_t bytes = inputs * (norm_dtype == PS_F32 ? 4 : 2);
    for (int64_t at = int64_t(threadIdx.x) * kLine; at < bytes; at += int64_t(blockDim.x) * kLine)
      prefetch_line(static_cast<const char *>(norm) + at);
  }
};

/* N weights of a norm as they lie in memory; f32 needs all words, 16-bit numbers the first half. */
template <int N>
struct NormFactors {
  uint32_t words[N];

  /* Fours `apart` inputs apart, from input k on. */
  __device__ __forceinline__ void load(const Joins &joins, int64_t k, int apart = 4) {
    static_assert(N % 4 == 0, "Packs of 16 bytes, or of 8");
    if (joins.norm_dtype == PS_F32) {
#pragma unroll
      for (int i = 0; i < N / 4; i++) copy(i * 4, *reinterpret_cast<const uint4 *>(static_cast<const float *>(joins.norm) + k + i * apart));
    } else {
      const uint16_t *from = static_cast<const uint16_t *>(joins.norm) + k;
#pragma unroll
      for (int i = 0; i < N / 4; i++) {
        const uint2 pair = *reinterpret_cast<const uint2 *>(from + i * apart);
        words[2 * i] = pair.x, words[2 * i + 1] = pair.y;
      }
    }
  }

  __device__ __forceinline__ void copy(int at, const uint4 &four) {
    words[at] = four.x, words[at + 1] = four.y, words[at + 2] = four.z, words[at + 3] = four.w;
  }

  __device__ __forceinline__ void widen(const Joins &joins, float (&out)[N]) const {
    if (joins.norm_dtype == PS_F32) {
#pragma unroll
      for (int i = 0; i < N; i++) out[i] = __uint_as_float(words[i]);
    } else if (joins.norm_dtype == PS_BF16) {
#pragma unroll
      for (int i = 0; i < N; i++) out[i] = __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
    } else {
#pragma unroll
      for (int i = 0; i < N; i++) out[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16))));
    }
  }

  /* Multiplies x by the weights, and returns the sum of its squares before. */
  __device__ __forceinline__ float apply(const Joins &joins, float (&x)[N]) const {
    float factors[N], squares = 0;
    widen(joins, factors);
#pragma unroll
    for (int i = 0; i < N; i++) {
      squares = fmaf(x[i], x[i], squares);
      x[i] *= factors[i];
    }
    return squares;
  }
  __device__ __forceinline__ float apply(const Joins &joins, float4 (&x)[N / 4]) const {
    float numbers[N];
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
      numbers[4 * i] = x[i].x, numbers[4 * i + 1] = x[i].y, numbers[4 * i + 2] = x[i].z, numbers[4 * i + 3] = x[i].w;
    }
    const float squares = apply(joins, numbers);
#pragma unroll
    for (int i = 0; i < N / 4; i++) x[i] = {numbers[4 * i], numbers[4 * i + 1], numbers[4 * i + 2], numbers[4 * i + 3]};
    return squares;
  }
};

/* What a product of x times the norm's weights is to be multiplied by, from the sums of squares of the warps. 1 without a norm. */
template <int Warps>
__device__ __forceinline__ float norm_scale(const Joins &joins, const float *squares, int64_t inputs) {
  if (joins.norm == nullptr) return 1.f;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < Warps; w++) sum += squares[w];
  return 1.f / sqrtf(sum / static_cast<float>(inputs) + joins.eps);
}

__device__ __forceinline__ float activate(ps_ending ending, float gate) { return ending == PS_SILU_MUL ? Silu::of(gate) : Gelu::of(gate); }

}  // namespace ps
