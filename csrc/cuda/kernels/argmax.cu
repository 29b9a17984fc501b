/* The lowest index of each row's largest number; -1 for a row with a NaN or without a finite maximum. Bound by 4 bytes per number. One
 * multiprocessor takes about 6 us for the 0.6 MB of a large vocabulary, so few long rows get a cluster of blocks each, others a block. */
#include "cluster.cuh"
#include "pack.cuh"

namespace ps {
namespace {

constexpr int kThreads = 1024;
constexpr int kLoads = 4; /* packs in flight a thread */
constexpr int kClusterBlocks = 8;
constexpr int64_t kLongRow = int64_t(kThreads) * 16; /* what a block has in flight at once */
constexpr unsigned kInfinity = 0x7f800000u;

/* Grows with the number, and among equal ones with a lower index. The two zeros are equal. */
__device__ __forceinline__ uint64_t rank_of(float number, int64_t index) {
  const unsigned bits = __float_as_uint(number + 0.f);
  const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t(ordered) << 32 | ~static_cast<unsigned>(index);
}

__device__ __forceinline__ uint64_t warp_max(uint64_t rank) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, rank, distance);
    rank = other > rank ? other : rank;
  }
  return rank;
}

/* What a block of a cluster found. */
struct Found {
  uint32_t rank_low, rank_high, nan;
};

/* Blocks: of a row. */
template <int N, int Blocks>
__global__ void __launch_bounds__(kThreads) argmax_kernel(ArgmaxParams p) {
  __shared__ uint64_t best_of_warp[kThreads / kWarp];
  __shared__ Found found;
  wait_for_previous();
  let_next_start();
  constexpr int64_t kStep = int64_t(Blocks) * kThreads * N;
  const int64_t row = blockIdx.x / Blocks;
  const float *x = p.x.row(row);
  float best = __uint_as_float(kInfinity | 0x80000000u);
  int64_t place = p.width; /* of the best; ranks last when nothing is above -infinity */
  bool nan = false;
  for (int64_t base = (int64_t(blockIdx.x % Blocks) * kThreads + threadIdx.x) * N; base < p.width; base += kStep * kLoads) {
    Pack<float, N> packs[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; load++) {
      const int64_t i = base + load * kStep;
      packs[load] = load_pack<N>(x + (i < p.width ? i : base)); /* the base again: never before an equal number */
    }
#pragma unroll
    for (int load = 0; load < kLoads; load++) {
#pragma unroll
      for (int j = 0; j < N; j++) {
        const float number = packs[load].value[j];
        nan = nan || number != number;
        if (number > best) {
          best = number;
          place = base + load * kStep + j;
        }
      }
    }
  }
  const uint64_t rank = warp_max(rank_of(best, place));
  if (threadIdx.x % kWarp == 0) best_of_warp[threadIdx.x / kWarp] = rank;
  bool any_nan = __syncthreads_or(nan) != 0;
  uint64_t winner = threadIdx.x < kWarp ? warp_max(best_of_warp[threadIdx.x]) : 0;
  if constexpr (Blocks > 1) {
    if (threadIdx.x == 0) found = {static_cast<uint32_t>(winner), static_cast<uint32_t>(winner >> 32), any_nan};
    cluster_sync();
    if (threadIdx.x < kWarp && cluster_rank() == 0) {
      const uint32_t block = threadIdx.x % Blocks;
      any_nan = __any_sync(kAllLanes, read_remote(&found.nan, block) != 0);
      winner = warp_max(uint64_t(read_remote(&found.rank_high, block)) << 32 | read_remote(&found.rank_low, block));
    }
    cluster_sync(); /* nobody's memory goes away while it is read */
    if (cluster_rank() != 0) return;
  }
  const int32_t index = static_cast<int32_t>(~static_cast<unsigned>(winner));
  if (threadIdx.x > 0) return;
  const bool finite = index < p.width && (__float_as_uint(x[index]) & kInfinity) != kInfinity;
  p.out[row] = finite && !any_nan ? index : -1;
}
static_assert(kThreads / kWarp == kWarp, "One warp joins the results of all warps");

}  // namespace

void argmax(Backend &backend, const ArgmaxParams &params) {
  const bool clusters = backend.capability >= 90 && params.width > kLongRow && params.tokens * kClusterBlocks <= backend.multiprocessors;
  with_pack<4>(params.width % 4 == 0 && packs(params.x, 4), [&](auto n) {
    if (clusters && launch_clusters(backend, "Could not launch argmax", argmax_kernel<n(), kClusterBlocks>, params.tokens, kClusterBlocks,
                                    dim3(kThreads), 0, params)) {
      return;
    }
    launch(backend, "Could not launch argmax", argmax_kernel<n(), 1>, dim3(static_cast<unsigned>(params.tokens)), kThreads, 0, params);
  });
}

}  // namespace ps
