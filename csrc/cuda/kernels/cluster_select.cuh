/* The best of many scores by a cluster of blocks that hold a share each. They count into bins of their own, add up everybody's, and so
 * find the same cut as one block would (select.cuh). */
#pragma once

#include "cluster.cuh"
#include "select.cuh"

namespace ps {

constexpr int kMostBlocks = 8; /* of a cluster */

/* What a block of the cluster shows the others, beside SelectShared::bins. */
struct ClusterShared {
  uint32_t low, high;  /* of its keys that take part */
  int32_t above, ties; /* its keys above the cut, and those that equal it */
  alignas(16) uint32_t bins[kBins]; /* of all blocks; for this block alone */
};

/* As find_cut, over the keys of all blocks. */
template <typename Keys>
__device__ __forceinline__ Cut find_cluster_cut(Keys &keys, int32_t wanted, int32_t blocks, SelectShared &shared, ClusterShared &cluster) {
  const int lane = threadIdx.x % kWarp;
  Interval interval{0, 0, wanted, false};
  find_span(keys, shared, interval.low, interval.high);
  if (threadIdx.x == 0) cluster.low = interval.low, cluster.high = interval.high, cluster.above = cluster.ties = 0;
  cluster_sync();
  interval.low = __reduce_min_sync(kAllLanes, lane < blocks ? read_remote(&cluster.low, lane) : 0xffffffffu);
  interval.high = __reduce_max_sync(kAllLanes, lane < blocks ? read_remote(&cluster.high, lane) : 0u);
  for (int pass = 0; pass < kMostPasses && !interval.done; pass++) {
    const int bits = 32 - __clz(interval.high - interval.low), shift = bits > 8 ? bits - 8 : 0;
    uint32_t *bins = shared.bins[pass];
    keys.visit([&](uint32_t k) {
      if (k >= interval.low && k <= interval.high) atomicAdd(&bins[(k - interval.low) >> shift], 1u);
    });
    cluster_sync();
    for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) {
      uint32_t sum = 0;
#pragma unroll
      for (int block = 0; block < kMostBlocks; block++) sum += block < blocks ? read_remote(bins + bin, block) : 0u;
      cluster.bins[bin] = sum;
    }
    __syncthreads();
    interval = narrow(interval, shift, cluster.bins);
  }
  return {interval.low, interval.low == interval.high ? interval.wanted : INT32_MAX};
}

/* Calls body(place, i) for this block's taken keys i; places are counted over all blocks, lower ranks first. The others may still read
 * what this block shows until the next cluster_sync(). */
template <typename Keys, typename Body>
__device__ __forceinline__ void select_in_cluster(Keys &keys, int32_t wanted, int32_t blocks, SelectShared &shared, ClusterShared &cluster,
                                                  const Body &body) {
  const Cut cut = find_cluster_cut(keys, wanted, blocks, shared, cluster);
  int32_t above = 0, ties = 0;
  keys.visit([&](uint32_t k) {
    above += k > cut.key;
    ties += k == cut.key;
  });
  above = __reduce_add_sync(kAllLanes, above);
  ties = __reduce_add_sync(kAllLanes, ties);
  const int lane = threadIdx.x % kWarp, rank = static_cast<int>(cluster_rank());
  if (lane == 0) atomicAdd(&cluster.above, above), atomicAdd(&cluster.ties, ties);
  cluster_sync();
  above = lane < blocks ? static_cast<int32_t>(read_remote(&cluster.above, lane)) : 0;
  ties = lane < blocks ? static_cast<int32_t>(read_remote(&cluster.ties, lane)) : 0;
  const int32_t lower_above = __reduce_add_sync(kAllLanes, lane < rank ? above : 0),
                lower_ties = __reduce_add_sync(kAllLanes, lane < rank ? ties : 0);
  const int32_t taken_ties = min(lower_ties, cut.ties), first = lower_above + taken_ties;
  const Cut own{cut.key, cut.ties == INT32_MAX ? INT32_MAX : cut.ties - taken_ties};
  visit_taken(keys, own, shared, [&](int32_t place, int32_t i) { body(first + place, i); });
}

}  // namespace ps
