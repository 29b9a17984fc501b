/* Keys of many pages in shared memory, of which the threads of a team hold runs of neighbours: places in the order of pages follow from one
 * scan, where keys dealt out in turn (select.cuh) need one per round. */
#pragma once

#include "select.cuh"

namespace ps {

/* Keys source[key_place(0)] to source[key_place(count - 1)], in chunks of Items per thread. */
template <int Items, typename OfTeam>
struct RunKeys {
  using Team = OfTeam;
  static_assert(Items % 4 == 0 && Items <= 32, "A thread reads four keys at a time and has a bit for each");
  static constexpr int kChunk = Items * Team::threads();

  /* Where a key lies: runs are 16 bytes apart, so that neighbouring threads use all banks. */
  static PS_HOST_DEVICE constexpr int32_t key_place(int32_t i) { return i + i / Items * 4; }

  const uint32_t *source;
  const int32_t count;
  uint32_t held[Items];

  __device__ __forceinline__ RunKeys(const uint32_t *source, int32_t count) : source(source), count(count) { load(0); }

  __device__ __forceinline__ void load(int32_t base) {
    const int32_t first = base + static_cast<int32_t>(threadIdx.x) * Items;
#pragma unroll
    for (int i = 0; i < Items; i += 4) {
      const uint4 four = first + i < count ? *reinterpret_cast<const uint4 *>(source + key_place(first) + i) : uint4{};
      held[i] = four.x;
      held[i + 1] = first + i + 1 < count ? four.y : 0;
      held[i + 2] = first + i + 2 < count ? four.z : 0;
      held[i + 3] = first + i + 3 < count ? four.w : 0;
    }
  }

  /* Calls body with every key of this thread. */
  template <typename Body>
  __device__ __forceinline__ void visit(const Body &body) {
    for (int32_t base = 0; base < count; base += kChunk) {
      if (count > kChunk) load(base);
#pragma unroll
      for (int i = 0; i < Items; i++) body(held[i]);
    }
  }
};

/* Writes the places of the taken keys, ascending. `out` has room for all of them. Ends with a barrier. */
template <int Items, typename Team>
__device__ __forceinline__ void write_taken(RunKeys<Items, Team> &keys, Cut cut, int32_t *out, SelectShared &shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int32_t written = 0, ties_seen = 0;
  for (int32_t base = 0; base < keys.count; base += keys.kChunk) {
    if (keys.count > keys.kChunk) keys.load(base);
    uint32_t above = 0, equal = 0;
#pragma unroll
    for (int i = 0; i < Items; i++) {
      above |= keys.held[i] > cut.key ? 1u << i : 0u;
      equal |= keys.held[i] == cut.key ? 1u << i : 0u;
    }
    const uint32_t own = __popc(above) | __popc(equal) << 16; /* keys above the cut, and those that equal it */
    uint32_t before = own, all = 0;
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const uint32_t other = __shfl_up_sync(kAllLanes, before, distance);
      before += lane >= distance ? other : 0;
    }
    if (lane == kWarp - 1) shared.before[warp] = before;
    Team::sync();
    before -= own;
#pragma unroll
    for (int i = 0; i < Team::threads() / kWarp; i++) {
      const uint32_t of_warp = shared.before[i];
      before += i < warp ? of_warp : 0;
      all += of_warp;
    }
    auto taken_ties = [&](int32_t ties) { return min(ties, cut.ties) - min(ties_seen, cut.ties); };
    int32_t ties = ties_seen + static_cast<int32_t>(before >> 16), place = written + static_cast<int32_t>(before & 0xffff) + taken_ties(ties);
    for (uint32_t left = above | equal; left != 0; left &= left - 1) {
      const int i = __ffs(left) - 1;
      const bool is_tie = equal >> i & 1;
      if (!is_tie || ties < cut.ties) out[place++] = base + static_cast<int32_t>(threadIdx.x) * Items + i;
      ties += is_tie;
    }
    written += static_cast<int32_t>(all & 0xffff) + taken_ties(ties_seen + static_cast<int32_t>(all >> 16));
    ties_seen += all >> 16;
    Team::sync();
  }
}

}  // namespace ps
