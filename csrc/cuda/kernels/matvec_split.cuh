/* Numbers of x as sums of 16-bit parts, for products on tensor cores that are nearly those of f32. */
#pragma once

#include <type_traits>

#include "../common.cuh"

namespace ps {

/* Parts that keep all (bf16) or 22 (f16) bits. */
template <typename W>
constexpr int kParts = std::is_same<W, bf16>::value ? 3 : 2;

/* Two numbers cut to 16 bits, towards zero: what is left is then exact, and a finite number stays finite. */
__device__ __forceinline__ uint32_t cut(bf16, float first, float second) {
  uint32_t out;
  asm("cvt.rz.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}
__device__ __forceinline__ uint32_t cut(f16, float first, float second) {
  uint32_t out;
  asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}
__device__ __forceinline__ float2 widen(bf16, uint32_t pair) { return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)}; }
__device__ __forceinline__ float2 widen(f16, uint32_t pair) { return __half22float2(reinterpret_cast<const __half2 &>(pair)); }

/* x as a sum of parts, largest first. Infinity and NaN go to the first part and leave nothing. */
template <typename W>
__device__ __forceinline__ void split_x(const float (&x)[8], uint32_t (&parts)[kParts<W>][4]) {
#pragma unroll
  for (int pair = 0; pair < 4; pair++) {
    float first = x[2 * pair], second = x[2 * pair + 1];
#pragma unroll
    for (int part = 0; part < kParts<W>; part++) {
      parts[part][pair] = cut(W{}, first, second);
      const float2 kept = widen(W{}, parts[part][pair]);
      first -= kept.x;
      second -= kept.y;
      first = first == first ? first : 0.f;
      second = second == second ? second : 0.f;
    }
  }
}

/* f16 holds few exponents. The power of two that brings a number to [2^14, 2^15), from the bits of its magnitude, and its inverse: from
 * exponent 28 on, both are normal numbers. */
__device__ __forceinline__ float f16_scale(uint32_t magnitude) { return __uint_as_float((268 - max(magnitude >> 23, 28u)) << 23); }
__device__ __forceinline__ float undo_f16_scale(uint32_t magnitude) { return __uint_as_float((max(magnitude >> 23, 28u) - 14) << 23); }

/* Scales the 32 numbers of a token so that the largest lies in [2^14, 2^15), and returns the factor that undoes it. */
__device__ __forceinline__ float scale_x(float (&x)[8]) {
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
  largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = max(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const float scale = f16_scale(largest);
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] *= scale;
  return undo_f16_scale(largest);
}

/* Pairs 0 to 3 of a lane's inputs as the instruction takes them: slots 0 and 1 hold the larger two parts in its upper and lower rows for
 * its first and second step; slot 2 has the third part of the first step in the upper rows, of the second in the lower rows. */
template <typename W>
__device__ __forceinline__ uint4 arrange_slot(const uint32_t (&parts)[kParts<W>][4], int slot) {
  if (slot == 2) return {parts[kParts<W> - 1][0], parts[kParts<W> - 1][2], parts[kParts<W> - 1][1], parts[kParts<W> - 1][3]};
  return {parts[0][2 * slot], parts[1][2 * slot], parts[0][2 * slot + 1], parts[1][2 * slot + 1]};
}

}  // namespace ps
