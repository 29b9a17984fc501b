/* Requests that bring memory to the L2 cache and nowhere else. Writes of earlier kernels end there too, so these may run before such kernels
 * are done. */
#pragma once

#include "../common.cuh"

namespace ps {

/* Starts to bring so many bytes, a multiple of 16, to the L2 cache; from compute capability 9.0 on. */
__device__ __forceinline__ void prefetch_l2(const void *source, int64_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(source)), "r"(static_cast<uint32_t>(bytes)) : "memory");
#endif
}
/* The same for one line, from 8.0 on. */
__device__ __forceinline__ void prefetch_line(const void *source) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(source)) : "memory");
}

}  // namespace ps
