/* What several kernels use: number formats, reductions, ordering of kernels, checks of indices. */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "../block_formats.h"
#include "backend.h"

namespace ps {

using bf16 = __nv_bfloat16;
using f16 = __half;
/* Numbers of the KV cache in 8 bits, multiplied by the scale of their row: integers, and e4m3. */
struct q8 {
  int8_t bits;
};
struct fp8 {
  __nv_fp8_storage_t bits;
};

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/* Calls body with a value of the C++ type that stores the dtype. */
template <typename Body>
void with_dtype(int32_t dtype, const Body &body) {
  if (dtype == PS_F32) body(float{});
  else if (dtype == PS_F16) body(f16{});
  else body(bf16{});
}

/* The same for the type that stores keys and values. */
template <typename Body>
void with_kv_type(const ps_cache_desc &desc, const Body &body) {
  if (desc.kv_type == PS_KV_Q8) body(q8{});
  else if (desc.kv_type == PS_KV_FP8) body(fp8{});
  else with_dtype(desc.dtype, body);
}

/* Calls body with values of the types of statistics, and of keys and values. */
template <typename Body>
void with_cache_types(const ps_cache_desc &desc, const Body &body) {
  with_dtype(desc.dtype, [&](auto type) {
    if (desc.kv_type == PS_KV_Q8) body(type, q8{});
    else if (desc.kv_type == PS_KV_FP8) body(type, fp8{});
    else body(type, type);
  });
}

/* Whether a type of keys and values is to be multiplied by the scale of its row. */
template <typename T>
constexpr bool kIsScaled = sizeof(T) == 1;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(f16 value) { return __half2float(value); }
__device__ __forceinline__ float to_float(bf16 value) { return __bfloat162float(value); }

__device__ __forceinline__ float to_float(q8 value) { return static_cast<float>(value.bits); }
__device__ __forceinline__ float to_float(fp8 value) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(value.bits, __NV_E4M3))); }

/* Rounds to nearest, ties to even; NaN stays NaN. */
__device__ __forceinline__ void store_number(float *out, float value) { *out = value; }
__device__ __forceinline__ void store_number(f16 *out, float value) { *out = __float2half_rn(value); }
__device__ __forceinline__ void store_number(bf16 *out, float value) { *out = __float2bfloat16_rn(value); }

/* |value| is at most what the format can hold, and a rounding error. */
__device__ __forceinline__ void store_number(q8 *out, float value) { out->bits = static_cast<int8_t>(__float2int_rn(value)); }
__device__ __forceinline__ void store_number(fp8 *out, float value) { out->bits = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3); }

/* Waits until the kernels before this one are done and their writes can be seen. The first thing a kernel does with memory. */
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Lets the next kernel be set up while this one still runs; it waits in wait_for_previous(). */
__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* The larger number; NaN if either is. */
__device__ __forceinline__ float max_nan(float a, float b) {
  float out;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max_nan(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value = max_nan(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/* Sum over the block, the same bits in every thread. `shared` [32] floats; all threads must call. */
__device__ __forceinline__ float block_sum(float value, float *shared) {
  value = warp_sum(value);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = (blockDim.x + kWarp - 1) / kWarp;
  __syncthreads();
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_sum(lane < warps ? shared[lane] : 0.f);
}

/* Adds to one of the cache's counters. */
__device__ __forceinline__ void add_to_counter(int64_t &counter, int32_t by) {
  atomicAdd(reinterpret_cast<unsigned long long *>(&counter), static_cast<unsigned long long>(by));
}

/* Notes a number that a kernel refuses; only the first one is recorded. The array comes last: the host may look meanwhile. */
static __device__ __noinline__ void note_bad_index(BadIndex *out, IndexArray array, int64_t place, int32_t value, int64_t limit) {
  if (atomicCAS(&out->array, kNoArray, kBeingNoted) != kNoArray) return;
  out->place = static_cast<int32_t>(place);
  out->value = value;
  out->limit = static_cast<int32_t>(limit);
  __threadfence_system();
  *const_cast<volatile int32_t *>(&out->array) = array;
}

/* The index, or 0 with a note when it lies outside [0, limit). */
__device__ __forceinline__ int32_t checked_index(BadIndex *out, IndexArray array, int64_t place, int32_t value, int64_t limit) {
  if (static_cast<uint32_t>(value) < static_cast<uint64_t>(limit)) return value;
  note_bad_index(out, array, place, value, limit);
  return 0;
}

/* Physical page of a logical one of a sequence, whose `table` begins `offset` places into the page table. */
__device__ __forceinline__ int32_t checked_page(BadIndex *out, const int32_t *table, int64_t offset, int64_t logical, int64_t num_pages) {
  return checked_index(out, kPageTable, offset + logical, table[logical], num_pages);
}

/* Tokens of sequence b, or 0 with a note when they are none or more than the page table can hold. */
__device__ __forceinline__ int32_t checked_length(BadIndex *out, const SequencesView &view, int64_t b, int32_t page_size) {
  const int32_t length = view.lengths[b];
  if (length >= 1 && length <= view.max_pages * page_size) return length;
  note_bad_index(out, kLengths, b, length, view.max_pages * page_size);
  return 0;
}

}  // namespace ps
