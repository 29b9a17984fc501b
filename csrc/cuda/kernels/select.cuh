/* The best of many scores, by one block: the score at the cut is found in counting passes that look at ever fewer bits.
 *
 * Scores become integers of the same order, NaN lowest. A pass counts 256 equal intervals between the lowest and the highest key
 * that still matter and keeps the interval with the cut; the first pass spans what the scores really span, so two passes are
 * usual and five the most, whatever the data. Results do not depend on the order in which threads count. */
#pragma once

#include "../common.cuh"

namespace ps {

constexpr int kBins = 256;
constexpr int kMostWarps = 32;

struct SelectShared {
  uint32_t bins[kBins];
  uint32_t low[kMostWarps], high[kMostWarps];
  int32_t above[kMostWarps], equal[kMostWarps];
  uint32_t next_low, next_high;
  int32_t wanted;
  int32_t done;
};

/* Larger scores give larger keys; -0 counts as +0 and NaN as less than everything. */
__device__ __forceinline__ uint32_t ordered_key(float score) {
  const uint32_t bits = __float_as_uint(score), flipped = bits ^ (bits & 0x80000000u ? 0xffffffffu : 0x80000000u);
  return score != score ? 0u : bits == 0x80000000u ? 0x80000000u : flipped;
}

/* Take every key above `key`, and the first `ties` that equal it. */
struct Cut {
  uint32_t key;
  int32_t ties;
};

/* The first warp finds the interval in which the wanted-th largest key lies. */
__device__ inline void find_interval(uint32_t low, uint32_t high, int shift, SelectShared &shared) {
  constexpr int kShare = kBins / kWarp;
  const int lane = threadIdx.x;
  int32_t own = 0;
#pragma unroll
  for (int i = 0; i < kShare; i++) own += shared.bins[lane * kShare + i];
  int32_t from_here = own; /* keys in this lane's intervals and in those of higher lanes */
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t other = __shfl_down_sync(kAllLanes, from_here, distance);
    from_here += lane + distance < kWarp ? other : 0;
  }
  int32_t above = from_here - own;
  const int32_t wanted = shared.wanted;
  __syncwarp();
  if (above >= wanted || from_here < wanted) return; /* one lane goes on */
  int bin = lane * kShare + kShare - 1;
  while (above + static_cast<int32_t>(shared.bins[bin]) < wanted) above += shared.bins[bin--];
  const uint32_t next_low = low + (static_cast<uint32_t>(bin) << shift), last = next_low + ((1u << shift) - 1);
  shared.next_low = next_low;
  shared.next_high = last < high && last >= next_low ? last : high;
  shared.wanted = wanted - above;
  shared.done = shift == 0 || static_cast<int32_t>(shared.bins[bin]) == wanted - above;
}

/* Lowest and highest of the keys from `least` on, in every thread. */
template <typename Key>
__device__ inline void find_span(const Key &key, int32_t count, uint32_t least, SelectShared &shared, uint32_t &low, uint32_t &high) {
  low = 0xffffffffu;
  high = 0;
  for (int32_t i = threadIdx.x; i < count; i += blockDim.x) {
    const uint32_t k = key(i);
    low = k >= least ? min(low, k) : low;
    high = max(high, k);
  }
  low = __reduce_min_sync(kAllLanes, low);
  high = __reduce_max_sync(kAllLanes, high);
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  if (lane == 0) shared.low[threadIdx.x / kWarp] = low, shared.high[threadIdx.x / kWarp] = high;
  __syncthreads();
  low = __reduce_min_sync(kAllLanes, lane < warps ? shared.low[lane] : 0xffffffffu);
  high = __reduce_max_sync(kAllLanes, lane < warps ? shared.high[lane] : 0u);
}

/* Where to cut so that `wanted` of `count` keys are taken. Keys below `least` do not take part; at least `wanted` >= 1 do. All threads
 * call and get the same. */
template <typename Key>
__device__ inline Cut find_cut(const Key &key, int32_t count, int32_t wanted, uint32_t least, SelectShared &shared) {
  uint32_t low, high;
  __syncthreads();
  if (threadIdx.x == 0) shared.wanted = wanted, shared.done = 0;
  find_span(key, count, least, shared, low, high);
  while (true) {
    const int bits = 32 - __clz(high - low), shift = bits > 8 ? bits - 8 : 0;
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) shared.bins[i] = 0;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < count; i += blockDim.x) {
      const uint32_t k = key(i);
      if (k >= low && k <= high) atomicAdd(&shared.bins[(k - low) >> shift], 1u);
    }
    __syncthreads();
    if (threadIdx.x < kWarp) find_interval(low, high, shift, shared);
    __syncthreads();
    low = shared.next_low;
    high = shared.next_high;
    const bool done = shared.done;
    const int32_t ties = shared.wanted;
    __syncthreads();
    if (done) return {low, low == high ? ties : count}; /* a whole interval is taken: then all that equal its lowest key are */
  }
}

/* Writes value(i) of the taken ones in order of i. `out` has room for all of them. */
template <typename Key, typename Value>
__device__ inline void write_taken(const Key &key, int32_t count, Cut cut, const Value &value, int32_t *out, SelectShared &shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int32_t share = (count + warps * kWarp - 1) / (warps * kWarp) * kWarp, begin = warp * share, end = min(begin + share, count);
  int32_t above = 0, equal = 0;
  for (int32_t i = begin + lane; i < end; i += kWarp) {
    const uint32_t k = key(i);
    above += k > cut.key;
    equal += k == cut.key;
  }
  above = __reduce_add_sync(kAllLanes, above);
  equal = __reduce_add_sync(kAllLanes, equal);
  __syncthreads();
  if (lane == 0) shared.above[warp] = above, shared.equal[warp] = equal;
  __syncthreads();
  int32_t ties_before = __reduce_add_sync(kAllLanes, lane < warp ? shared.equal[lane] : 0);
  int32_t place = __reduce_add_sync(kAllLanes, lane < warp ? shared.above[lane] : 0) + min(ties_before, cut.ties);
  const unsigned below = (1u << lane) - 1;
  for (int32_t first = begin; first < end; first += kWarp) {
    const uint32_t k = first + lane < end ? key(first + lane) : 0;
    const bool in = first + lane < end;
    const unsigned ties = __ballot_sync(kAllLanes, in && k == cut.key);
    const bool taken = in && (k > cut.key || (k == cut.key && ties_before + __popc(ties & below) < cut.ties));
    const unsigned all = __ballot_sync(kAllLanes, taken);
    if (taken) out[place + __popc(all & below)] = value(first + lane);
    place += __popc(all);
    ties_before += __popc(ties);
  }
}

/* Pages that are always in: the first `first` and the last `last`; `best` more are to be found among the rest. */
struct Forced {
  int32_t first, last, best;
};

__device__ __forceinline__ Forced forced_pages(int64_t k, int32_t sink_pages, int32_t recent_pages) {
  const int32_t places = static_cast<int32_t>(k), last = min(recent_pages, places), first = min(sink_pages, places - last);
  return {first, last, places - last - first};
}

/* Writes the forced pages around the place for the best. */
__device__ __forceinline__ void write_forced(const Forced &forced, int32_t pages, int32_t k, int32_t *out) {
  for (int32_t i = threadIdx.x; i < forced.first; i += blockDim.x) out[i] = i;
  for (int32_t i = threadIdx.x; i < forced.last; i += blockDim.x) out[k - forced.last + i] = pages - forced.last + i;
}

/* Counts a call's selections; by the block of the first row. */
__device__ inline void count_selection(const PageSelectParams &p, int32_t pages, bool first_row) {
  const ps_cache_desc &desc = p.cache.desc;
  auto add = [](int64_t &counter) { atomicAdd(reinterpret_cast<unsigned long long *>(&counter), 1ull); };
  if (threadIdx.x == 0 && pages > p.k) add(p.cache.counters->rows_selected);
  if (!first_row) return;
  bool any = false;
  for (int64_t b = threadIdx.x; b < p.sequences.sequences; b += blockDim.x) any |= int64_t(p.sequences.lengths[b]) > p.k * desc.page_size;
  if (__syncthreads_or(any) && threadIdx.x == 0) add(p.cache.counters->selections);
}

/* Takes all pages of a row that has no more than k. */
__device__ inline void take_all(int32_t pages, int32_t *out, int32_t *count) {
  for (int32_t i = threadIdx.x; i < pages; i += blockDim.x) out[i] = i;
  if (threadIdx.x == 0) *count = pages;
}

}  // namespace ps
