/* The best of a few thousand keys in shared memory, by one block and as soon as possible. A step runs this once per layer, and code that comes
 * from memory takes longer than its work: so a short loop looks for the cut of select.cuh, two bits at a time. Each thread holds neighbouring
 * keys, so that places follow from one scan. */
#pragma once

#include "select.cuh"

namespace ps {

constexpr int kSelectThreads = 256, kSelectWarps = kSelectThreads / kWarp;
constexpr int kMostHeld = 8; /* keys of a thread */
constexpr int kFieldBits = 10, kFieldMask = (1 << kFieldBits) - 1;
static_assert(kMostHeld * kWarp <= kFieldMask, "A field holds the count of a warp");

struct BlockSelectShared {
  alignas(16) uint32_t counts[2][kSelectWarps]; /* in turn */
};

/* Sum of 16-bit fields over the threads before this one. One barrier. */
__device__ __forceinline__ uint32_t sum_before(uint32_t own, uint32_t (&counts)[kSelectWarps]) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t up_to_here = own;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, up_to_here, distance);
    up_to_here += lane >= distance ? other : 0;
  }
  if (lane == kWarp - 1) counts[warp] = up_to_here;
  __syncthreads();
  uint32_t before = up_to_here - own;
#pragma unroll
  for (int i = 0; i < kSelectWarps - 1; i++) before += i < warp ? counts[i] : 0;
  return before;
}

/* Writes the numbers of the `wanted` best of `count` keys, in order, to `out` in shared memory. Keys that take part lie in [low, high], others
 * are 0; at least so many take part. kSelectThreads threads call, after a barrier. Ends with a barrier. */
__device__ __forceinline__ void select_here(const uint32_t *from, int32_t count, uint32_t low, uint32_t high, int32_t wanted,
                                            BlockSelectShared &shared, int32_t *out) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t items = (count + kSelectThreads - 1) / kSelectThreads, base = threadIdx.x * items;
  uint32_t held[kMostHeld];
#pragma unroll
  for (int i = 0; i < kMostHeld; i++) held[i] = i < items && base + i < count ? from[base + i] : 0;

  /* The wanted-th largest key lies in [low, high]; `above`: keys beyond. Three keys cut that into four parts. */
  int32_t above = 0, turn = 0;
#pragma unroll 1
  while (low < high) {
    const uint32_t step = (high - low) / 4 + 1, first = low + step, second = first + step, third = second + step;
    uint32_t own = 0;
#pragma unroll
    for (int i = 0; i < kMostHeld; i++) {
      if (i >= items) break; /* alike in all threads */
      own += (held[i] >= first ? 1u : 0u) + (held[i] >= second ? 1u << kFieldBits : 0u) + (held[i] >= third ? 1u << 2 * kFieldBits : 0u);
    }
    own = __reduce_add_sync(kAllLanes, own);
    if (lane == 0) shared.counts[turn][warp] = own;
    __syncthreads();
    int32_t from_first = 0, from_second = 0, from_third = 0;
#pragma unroll
    for (int i = 0; i < kSelectWarps; i++) {
      const uint32_t all = shared.counts[turn][i];
      from_first += all & kFieldMask, from_second += all >> kFieldBits & kFieldMask, from_third += all >> 2 * kFieldBits;
    }
    turn ^= 1;
    /* a cut without ties: all keys from here on */
    const uint32_t exact = from_first == wanted ? first : from_second == wanted ? second : from_third == wanted ? third : 0;
    if (exact > 0) {
      low = high = exact - 1, above = wanted;
    } else if (from_third >= wanted) {
      low = third;
    } else if (from_second >= wanted) {
      low = second, high = third - 1, above = from_third;
    } else if (from_first >= wanted) {
      low = first, high = second - 1, above = from_second;
    } else {
      high = first - 1, above = from_first;
    }
  }

  /* the places: keys above the cut, and << 16 those that equal it */
  const uint32_t cut = low;
  uint32_t own = 0;
#pragma unroll
  for (int i = 0; i < kMostHeld; i++) own += held[i] > cut ? 1u : held[i] == cut ? 1u << 16 : 0u;
  const uint32_t before = sum_before(own, shared.counts[turn]);
  const int32_t most_ties = wanted - above;
  int32_t ties = before >> 16, place = static_cast<int32_t>(before & 0xffff) + min(ties, most_ties);
#pragma unroll
  for (int i = 0; i < kMostHeld; i++) {
    const bool is_tie = held[i] == cut;
    if (held[i] > cut || (is_tie && ties < most_ties)) out[place++] = base + i;
    ties += is_tie;
  }
  __syncthreads();
}

}  // namespace ps
