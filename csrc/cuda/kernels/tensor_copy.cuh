/* Copies of boxes of an array from global to shared memory, by a map of it (tensor_map.h). They report their bytes to a barrier. Bodies exist only
 * where the compiler targets sm_90a. */
#pragma once

#include <cuda.h>

#include "cluster.cuh"
#include "wgmma.cuh"

namespace ps {
namespace wgmma {

#if defined(PS_HAS_WGMMA)

__device__ __forceinline__ void copy_box(uint32_t shared, const CUtensorMap &map, int32_t at0, int32_t at1, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
               "l"(&map), "r"(at0), "r"(at1), "r"(barrier)
               : "memory");
}

__device__ __forceinline__ void copy_box(uint32_t shared, const CUtensorMap &map, int32_t at0, int32_t at1, int32_t at2, int32_t at3,
                                         uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared),
               "l"(&map), "r"(at0), "r"(at1), "r"(at2), "r"(at3), "r"(barrier)
               : "memory");
}

/* Arrives at the barrier that block `rank` of the cluster has where this block has its own, after all that this thread has written. */
__device__ __forceinline__ void barrier_arrive_remote(uint32_t barrier, uint32_t rank) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(remote_address(barrier, rank)) : "memory");
}

#endif

}  // namespace wgmma
}  // namespace ps
