/* One-line wrappers of the tensor core and copy instructions that compute capability 8.0 has. */
#pragma once

#include "../common.cuh"

namespace ps {

/* Capability that device code is compiled for, times ten; on the host what it is in the usual case. */
#if defined(__CUDA_ARCH__)
constexpr int kCapability = __CUDA_ARCH__ / 10;
#else
constexpr int kCapability = 90;
#endif

__device__ __forceinline__ uint32_t shared_address(const void *pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

/* A line of shared memory. What is copied to it begins on one: copies that lie across two lines are written twice. */
constexpr int kLineBytes = 128;

/* Copies 16 bytes to shared memory, or writes zeros where `valid` is false. */
__device__ __forceinline__ void copy_async(uint32_t target, const void *source, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(valid ? 16 : 0));
}
/* Copies 4 bytes to shared memory. */
__device__ __forceinline__ void copy_number_async(uint32_t target, const void *source) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(target), "l"(source));
}
/* copy_async of what a step reads once, weights above all: it leaves the L2 cache before all else. Code of kernels, page tables and norms then
 * stay there from one layer to the next. */
__device__ __forceinline__ void copy_async_once(uint32_t target, const void *source, bool valid) {
#if __CUDA_ARCH__ >= 900
  constexpr uint64_t policy = 0x12f0000000000000ull; /* what createpolicy gives; a constant needs no move to uniform registers for each copy */
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(target), "l"(source), "r"(valid ? 16 : 0),
               "l"(policy));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;"); }
template <int Pending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

/* Four 8 x 8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

/* c [16, 8] += a [16, 16] * b [16, 8]. Lane (g, t) = (lane / 4, lane % 4) holds c at rows g, g + 8 and columns 2t, 2t + 1. */
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void multiply_add<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The four registers of a tile of bytes: rows g and g + 8, first half of the columns, then the second. */
struct ByteTile {
  uint32_t first, next, first_high, next_high;
};

/* c [16, 8] += a [16, 32] * b [32, 8] of bytes, signed or not. Lane (g, t) holds columns 4t to + 3 and 4t + 16 to + 19. */
template <bool Signed>
__device__ __forceinline__ void multiply_bytes(int32_t (&c)[4], const ByteTile &a, uint2 b) {
  if constexpr (Signed) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.first), "r"(a.next), "r"(a.first_high), "r"(a.next_high), "r"(b.x), "r"(b.y));
  } else {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.first), "r"(a.next), "r"(a.first_high), "r"(a.next_high), "r"(b.x), "r"(b.y));
  }
}

/* Two numbers as 16-bit floats in a register, the first in the low half. */
template <typename T>
__device__ __forceinline__ uint32_t pack(float first, float second);
template <>
__device__ __forceinline__ uint32_t pack<bf16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t &>(pair);
}
template <>
__device__ __forceinline__ uint32_t pack<f16>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return reinterpret_cast<const uint32_t &>(pair);
}

template <typename T>
__device__ __forceinline__ float round_to(float value) {
  T out;
  store_number(&out, value);
  return to_float(out);
}

/* 2^exponent, which is -126 to 127. */
__device__ __forceinline__ float power_of_two(int exponent) { return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23); }

/* The exponent of the largest of four neighbouring lanes' numbers, which are not negative, -126 to 126; 0 where that is 0, infinite or
 * NaN. */
__device__ __forceinline__ int quad_exponent(float largest) {
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
  return largest > 0 && isfinite(largest) ? min(max(exponent, -126), 126) : 0;
}

/* Two numbers as a sum of two 16-bit floats each: `high`, and in `low` what rounding left. Together they keep 16 (bf16) or 22 (f16)
 * bits, so a product of two instructions is nearly that of f32. */
template <typename T>
__device__ __forceinline__ void split(float first, float second, uint32_t &high, uint32_t &low) {
  high = pack<T>(first, second);
  low = pack<T>(first - round_to<T>(first), second - round_to<T>(second));
}

}  // namespace ps
