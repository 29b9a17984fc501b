/* The best of a few thousand keys in shared memory, by one block and as soon as possible: what the cut of select.cuh finds in counting
 * passes of 8 bits takes one pass of 10 here, and the keys of the bin with the cut are ranked. Each thread holds neighbouring keys, so
 * that places follow from one scan. A step runs this once per layer, and code that comes from memory takes longer than its work: there is one
 * version for all counts. */
#pragma once

#include "select.cuh"

namespace ps {

constexpr int kRanked = kWarp; /* keys of a bin */
constexpr int kHeldStep = 4;   /* keys that a thread reads at a time */
constexpr int32_t kMostSelected = 2560; /* keys */

/* Four bins a thread. */
template <int Threads>
constexpr int kFineBits = Threads == 128   ? 9
                          : Threads == 256 ? 10
                                           : 11;
template <int Threads>
constexpr int kMostHeld = (kMostSelected / Threads + kHeldStep - 1) / kHeldStep * kHeldStep; /* keys of a thread */

template <int Threads>
struct BlockSelectShared {
  static_assert(4 * Threads == 1 << kFineBits<Threads>, "A thread clears four bins");
  alignas(16) uint32_t bins[1 << kFineBits<Threads>];
  alignas(16) uint32_t counts[Threads / kWarp];
  alignas(16) uint32_t ranked[kRanked]; /* 0 where there are fewer */
  int32_t num_ranked;
  Interval interval;
  int32_t inside; /* keys in the interval */
};

/* Lowest and highest key of those that take part; keys of 0 do not. */
struct Span {
  uint32_t low, high;
};
__device__ __forceinline__ Span no_keys() { return {0xffffffffu, 0}; }

__device__ __forceinline__ Span joined(const Span &a, const Span &b) { return {min(a.low, b.low), max(a.high, b.high)}; }
__device__ __forceinline__ Span with_key(const Span &span, uint32_t key) { return key > 0 ? joined(span, {key, key}) : span; }
/* Of the spans of a warp's lanes. */
__device__ __forceinline__ Span joined_lanes(const Span &own) {
  return {__reduce_min_sync(kAllLanes, own.low), __reduce_max_sync(kAllLanes, own.high)};
}

/* Before the barrier that precedes select_here(). */
template <int Threads>
__device__ __forceinline__ void clear_bins(BlockSelectShared<Threads> &shared) {
  reinterpret_cast<uint4 *>(shared.bins)[threadIdx.x] = uint4{};
  if (threadIdx.x < kRanked) shared.ranked[threadIdx.x] = 0;
  if (threadIdx.x == 0) shared.num_ranked = 0;
}

/* Sum over the threads before this one. One barrier. */
template <int Threads>
__device__ __forceinline__ uint32_t sum_before(uint32_t own, BlockSelectShared<Threads> &shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t up_to_here = own;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, up_to_here, distance);
    up_to_here += lane >= distance ? other : 0;
  }
  if (lane == kWarp - 1) shared.counts[warp] = up_to_here;
  __syncthreads();
  uint32_t before = up_to_here - own;
#pragma unroll
  for (int i = 0; i < Threads / kWarp - 1; i++) before += i < warp ? shared.counts[i] : 0;
  return before;
}

/* Keeps the bin with the wanted-th largest key: thread t looks at four bins, the highest first. Two barriers. */
template <int Threads>
__device__ __forceinline__ void narrow_fine(const Interval &from, int shift, BlockSelectShared<Threads> &shared) {
  const int group = Threads - 1 - static_cast<int>(threadIdx.x);
  const uint4 four = reinterpret_cast<const uint4 *>(shared.bins)[group];
  const uint32_t counts[4] = {four.w, four.z, four.y, four.x};
  const int32_t own = four.x + four.y + four.z + four.w;
  int32_t above = static_cast<int32_t>(sum_before(own, shared));
  if (above < from.wanted && from.wanted <= above + own) {
    int at = 0;
#pragma unroll
    for (int i = 0; i < 3; i++) {
      if (at == i && above + static_cast<int32_t>(counts[i]) < from.wanted) above += counts[i], at++;
    }
    const int32_t inside = at == 0 ? counts[0] : at == 1 ? counts[1] : at == 2 ? counts[2] : counts[3], wanted = from.wanted - above;
    const uint32_t low = from.low + (static_cast<uint32_t>(4 * group + 3 - at) << shift), last = low + ((1u << shift) - 1);
    shared.interval = {low, last >= low && last < from.high ? last : from.high, wanted, inside == wanted};
    shared.inside = inside;
  }
  __syncthreads();
}

/* The cut inside an interval of at most kRanked keys, which are in shared.ranked. Every warp finds it for itself. */
template <int Threads>
__device__ __forceinline__ Cut rank(const Interval &interval, const BlockSelectShared<Threads> &shared) {
  const uint32_t own = shared.ranked[threadIdx.x % kWarp];
  int32_t greater = 0, equal = 0;
#pragma unroll 2
  for (int i = 0; i < shared.inside; i += 4) {
    const uint4 four = *reinterpret_cast<const uint4 *>(shared.ranked + i);
    greater += (four.x > own) + (four.y > own) + (four.z > own) + (four.w > own);
    equal += (four.x == own) + (four.y == own) + (four.z == own) + (four.w == own);
  }
  const bool is_cut = greater < interval.wanted && interval.wanted <= greater + equal;
  const int owner = __ffs(__ballot_sync(kAllLanes, is_cut)) - 1;
  return {__shfl_sync(kAllLanes, own, owner), interval.wanted - __shfl_sync(kAllLanes, greater, owner)};
}

/* Writes the numbers of the `wanted` best of `count` keys, in order, to `out` in shared memory. Keys that take part lie in `span`, others
 * are 0; at least so many take part. The block's Threads threads call, after a barrier; `from` is aligned to 16 bytes. Ends with a barrier. */
template <int Threads>
__device__ __forceinline__ void select_here(const uint32_t *from, int32_t count, const Span &span, int32_t wanted, BlockSelectShared<Threads> &shared,
                                            int32_t *out) {
  constexpr int kHeld = kMostHeld<Threads>, kMostBits = kFineBits<Threads>;
  const int items = (count + kHeldStep * Threads - 1) / (kHeldStep * Threads) * kHeldStep; /* alike in all threads */
  auto ends_before = [&](int i) { return i % kHeldStep == 0 && i >= items; };
  const int32_t base = threadIdx.x * items;
  uint32_t held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; i += kHeldStep) {
    const uint4 four = i < items && base + i < count ? *reinterpret_cast<const uint4 *>(from + base + i) : uint4{};
    held[i] = four.x;
    held[i + 1] = base + i + 1 < count ? four.y : 0;
    held[i + 2] = base + i + 2 < count ? four.z : 0;
    held[i + 3] = base + i + 3 < count ? four.w : 0;
  }

  /* the cut */
  Interval interval{span.low, span.high, wanted, false};
  Cut cut{};
#pragma unroll 1
  while (true) {
    const int bits = 32 - __clz(interval.high - interval.low), shift = bits > kMostBits ? bits - kMostBits : 0;
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      if (ends_before(i)) break;
      if (held[i] >= interval.low && held[i] <= interval.high) atomicAdd(&shared.bins[(held[i] - interval.low) >> shift], 1u);
    }
    __syncthreads();
    narrow_fine(interval, shift, shared);
    interval = shared.interval;
    cut = {interval.low, interval.done ? INT32_MAX : interval.wanted};
    if (interval.done || shift == 0) break;
    if (shared.inside <= kRanked) {
#pragma unroll
      for (int i = 0; i < kHeld; i++) {
        if (ends_before(i)) break;
        if (held[i] >= interval.low && held[i] <= interval.high) shared.ranked[atomicAdd(&shared.num_ranked, 1)] = held[i];
      }
      __syncthreads();
      cut = rank(interval, shared);
      break;
    }
    reinterpret_cast<uint4 *>(shared.bins)[threadIdx.x] = uint4{};
    __syncthreads();
  }

  /* the places */
  uint32_t own = 0; /* keys above the cut, and << 16 those that equal it */
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    if (ends_before(i)) break;
    own += held[i] > cut.key ? 1u : held[i] == cut.key ? 1u << 16 : 0u;
  }
  const uint32_t before = sum_before(own, shared);
  int32_t ties = before >> 16, place = static_cast<int32_t>(before & 0xffff) + min(ties, cut.ties);
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    if (ends_before(i)) break;
    const bool is_tie = held[i] == cut.key;
    const bool taken = held[i] > cut.key || (is_tie && ties < cut.ties);
    if (taken) out[place] = base + i;
    place += taken;
    ties += is_tie;
  }
  __syncthreads();
}

}  // namespace ps
