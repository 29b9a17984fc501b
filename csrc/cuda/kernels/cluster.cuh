/* Clusters of blocks that share their memory, from compute capability 9.0 on. Elsewhere the device functions compile to nothing and no
 * kernel that needs them is launched. */
#pragma once

#include "mma.cuh"

namespace ps {

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}

/* Says that this thread's writes to the cluster's memory are done. */
__device__ __forceinline__ void cluster_arrive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

/* Waits until all threads of the cluster have arrived. */
__device__ __forceinline__ void cluster_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

/* Where block `rank` of the cluster has what this block has at `own`, in shared memory. */
__device__ __forceinline__ uint32_t remote_address(uint32_t own, uint32_t rank) {
  uint32_t address = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(own), "r"(rank));
#endif
  return address;
}

/* The number that block `rank` of the cluster has where this block has `own`, in shared memory. */
__device__ __forceinline__ uint32_t read_remote(const void *own, uint32_t rank) {
  uint32_t value = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(value) : "r"(remote_address(shared_address(own), rank)) : "memory");
#endif
  return value;
}

/* Writes a number to a remote address. */
__device__ __forceinline__ void write_remote(uint32_t address, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
#endif
}

/* Writes a number to where block `rank` of the cluster has what this block has at `own`, in shared memory. */
__device__ __forceinline__ void write_remote(void *own, uint32_t rank, uint32_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(remote_address(shared_address(own), rank)), "r"(value) : "memory");
#endif
}

/* The same of four neighbouring numbers: one such request costs little more than that of a single number. */
__device__ __forceinline__ void write_remote(void *own, uint32_t rank, const uint4 &values) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(remote_address(shared_address(own), rank)), "r"(values.x), "r"(values.y),
               "r"(values.z), "r"(values.w)
               : "memory");
#endif
}

__device__ __forceinline__ void write_remote(void *own, uint32_t rank, const uint2 &values) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(remote_address(shared_address(own), rank)), "r"(values.x), "r"(values.y) : "memory");
#endif
}

/* Launches clusters of `size` blocks, early as other kernels (backend.h), from compute capability 9.0 on. Returns false and launches
 * nothing if fewer than `together` would run at once. */
template <typename... Params, typename... Args>
bool launch_clusters_together(Backend &backend, const char *what, void (*kernel)(Params...), int64_t clusters, int64_t together, int32_t size,
                              dim3 block, int64_t shared_bytes, Args... args) {
  allow_shared(what, kernel, shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * size));
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = backend.stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(size);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = 2;
  int at_once = 0;
  if (cudaOccupancyMaxActiveClusters(&at_once, kernel, &config) != cudaSuccess || at_once < together) {
    cudaGetLastError();
    return false;
  }
  forget_rows(backend);
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), what);
  return true;
}

/* The same of clusters that must all run at once. */
template <typename... Params, typename... Args>
bool launch_clusters(Backend &backend, const char *what, void (*kernel)(Params...), int64_t clusters, int32_t size, dim3 block, int64_t shared_bytes,
                     Args... args) {
  return launch_clusters_together(backend, what, kernel, clusters, clusters, size, block, shared_bytes, args...);
}

}  // namespace ps
