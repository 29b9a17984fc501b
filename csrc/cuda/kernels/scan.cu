/* The exclusive or of a buffer's words: does nothing but read, at the speed of the memory. Bound by 4 bytes a word. */
#include "../common.cuh"

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksAMultiprocessor = 8; /* all 2048 threads */
constexpr int kLoads = 4;                 /* 16-byte loads in flight per thread: 128 KiB per multiprocessor */

/* Reads past the first cache: every byte is used once. */
__device__ __forceinline__ uint4 load_once(const uint4 *p) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

__global__ void __launch_bounds__(kThreads, kBlocksAMultiprocessor) scan_kernel(const uint32_t *words, int64_t count, uint32_t *out) {
  wait_for_previous();
  let_next_start();
  const uint4 *quads = reinterpret_cast<const uint4 *>(words);
  const int64_t num_quads = count / 4, step = int64_t(gridDim.x) * kThreads * kLoads;
  uint32_t sum = 0;
  int64_t i = int64_t(blockIdx.x) * kThreads * kLoads + threadIdx.x;
  for (; i + (kLoads - 1) * kThreads < num_quads; i += step) {
    uint4 loaded[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; load++) loaded[load] = load_once(quads + i + load * kThreads);
#pragma unroll
    for (int load = 0; load < kLoads; load++) sum ^= loaded[load].x ^ loaded[load].y ^ loaded[load].z ^ loaded[load].w;
  }
  for (int load = 0; load < kLoads && i < num_quads; load++, i += kThreads) {
    const uint4 loaded = load_once(quads + i);
    sum ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
  }
  if (blockIdx.x == 0 && num_quads * 4 + threadIdx.x < count) sum ^= words[num_quads * 4 + threadIdx.x];
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) sum ^= __shfl_xor_sync(kAllLanes, sum, distance);
  if (threadIdx.x % kWarp == 0) atomicXor(out, sum); /* an exclusive or is the same in any order */
}

}  // namespace

void scan(Backend &backend, const ScanParams &params) {
  uint32_t *word = static_cast<uint32_t *>(scratch(backend, sizeof(uint32_t)));
  check_cuda(cudaMemsetAsync(word, 0, sizeof(uint32_t), backend.stream), "Could not clear the result of scan");
  const int64_t wanted = ceil_div(params.count, int64_t(kThreads) * kLoads * 4);
  const int64_t most = int64_t(backend.multiprocessors) * kBlocksAMultiprocessor;
  const int64_t blocks = wanted < 1 ? 1 : wanted < most ? wanted : most;
  launch(backend, "Could not launch scan", scan_kernel, dim3(static_cast<unsigned>(blocks)), kThreads, 0, params.words, params.count, word);
  check_cuda(cudaMemcpyAsync(params.out, word, sizeof(uint32_t), cudaMemcpyDeviceToHost, backend.stream), "Could not read the result of scan");
  check_cuda(cudaStreamSynchronize(backend.stream), "Could not scan");
}

}  // namespace ps
