/* The best of many scores, by one block: the score at the cut is found in counting passes that look at ever fewer bits.
 *
 * Scores become integers of the same order and stay in registers where they fit. A pass counts 256 equal intervals between the lowest
 * and the highest key that still matter and keeps the interval with the cut; the first pass spans what the scores really span, so
 * two or three passes are usual and four the most, whatever the data. Results do not depend on the order in which threads count. */
#pragma once

#include "../common.cuh"

namespace ps {

constexpr int kBins = 256;
constexpr int kMostPasses = 4; /* 32 bits, 8 a pass */
constexpr int kMostWarps = 32;
constexpr int kMostItems = 16; /* keys per thread of the largest block */

/* The threads that select together: the whole block, or its first Threads, which then meet at a barrier of their own. */
struct WholeBlock {
  static __device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};
template <int Threads>
struct FirstThreads {
  static PS_HOST_DEVICE constexpr int threads() { return Threads; }
  static __device__ __forceinline__ void sync() { asm volatile("bar.sync 1, %0;" ::"n"(Threads) : "memory"); }
};

struct SelectShared {
  alignas(16) uint32_t bins[kMostPasses][kBins];
  uint32_t low[kMostWarps], high[kMostWarps];
  uint32_t before[kMostItems * kMostWarps]; /* of a round and warp: keys above the cut that come before, and << 16 those that equal it */
  uint32_t all;                             /* the same, of a whole chunk */
};

/* Larger scores give larger keys; -0 counts as +0. NaN is the lowest of all, 1; 0 is left for what does not take part. */
__device__ __forceinline__ uint32_t ordered_key(float score) {
  const uint32_t bits = __float_as_uint(score), flipped = bits ^ (bits & 0x80000000u ? 0xffffffffu : 0x80000000u);
  return score != score ? 1u : bits == 0x80000000u ? 0x80000000u : flipped;
}

/* Keys source(0) to source(count - 1), Items per thread at a time, in rounds of one per thread. */
template <int Items, typename Source, typename OfTeam = WholeBlock>
struct Keys {
  using Team = OfTeam;
  const Source &source;
  const int32_t count;
  uint32_t held[Items];

  __device__ Keys(const Source &source, int32_t count) : source(source), count(count) { load(0); }

  __device__ __forceinline__ int32_t chunk() const { return Items * Team::threads(); }
  __device__ __forceinline__ int32_t place(int32_t base, int item) const { return base + item * Team::threads() + static_cast<int32_t>(threadIdx.x); }

  __device__ __forceinline__ void load(int32_t base) {
#pragma unroll
    for (int i = 0; i < Items; i++) held[i] = place(base, i) < count ? source(place(base, i)) : 0;
  }

  /* Calls body with every key of this thread. */
  template <typename Body>
  __device__ __forceinline__ void visit(const Body &body) {
    for (int32_t base = 0; base < count; base += chunk()) {
      if (count > chunk()) load(base);
#pragma unroll
      for (int i = 0; i < Items; i++) body(held[i]);
    }
  }
};

/* Take every key above `key`, and the first `ties` that equal it. */
struct Cut {
  uint32_t key;
  int32_t ties, count; /* count: of all that are taken */
};

/* Keys from low to high still matter, `wanted` of them are to be taken. */
struct Interval {
  uint32_t low, high;
  int32_t wanted;
  bool done; /* all keys from low on are taken, or low is the only one left */
  int32_t more; /* keys that are taken beyond those that are wanted, if all from low on are */
};

/* The bin with the wanted-th largest key; every warp finds it for itself. Up to `spare` more keys may be taken. */
__device__ __forceinline__ Interval narrow(const Interval &from, int shift, const uint32_t *bins, int32_t spare = 0) {
  constexpr int kShare = kBins / kWarp;
  const int lane = threadIdx.x % kWarp;
  uint32_t counts[kShare];
#pragma unroll
  for (int i = 0; i < kShare; i += 4) *reinterpret_cast<uint4 *>(counts + i) = *reinterpret_cast<const uint4 *>(bins + lane * kShare + i);
  int32_t own = 0;
#pragma unroll
  for (int i = 0; i < kShare; i++) own += counts[i];
  int32_t from_here = own; /* keys in this lane's bins and in those of higher lanes */
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t other = __shfl_down_sync(kAllLanes, from_here, distance);
    from_here += lane + distance < kWarp ? other : 0;
  }
  int32_t above = from_here - own, bin = -1, taken = 0, inside = 0;
#pragma unroll
  for (int i = kShare - 1; i >= 0; i--) {
    const int32_t with = above + static_cast<int32_t>(counts[i]);
    if (above < from.wanted && with >= from.wanted) bin = lane * kShare + i, taken = above, inside = counts[i];
    above = with;
  }
  const int owner = __ffs(__ballot_sync(kAllLanes, bin >= 0)) - 1;
  bin = __shfl_sync(kAllLanes, bin, owner);
  taken = __shfl_sync(kAllLanes, taken, owner);
  inside = __shfl_sync(kAllLanes, inside, owner);
  const uint32_t low = from.low + (static_cast<uint32_t>(bin) << shift), last = low + ((1u << shift) - 1);
  const int32_t wanted = from.wanted - taken;
  return {low, last >= low && last < from.high ? last : from.high, wanted, shift == 0 || inside - wanted <= spare, inside - wanted};
}

/* Lowest and highest of the keys that take part, in every thread. One barrier; bins are zero afterwards. */
template <typename Keys>
__device__ __forceinline__ void find_span(Keys &keys, SelectShared &shared, uint32_t &low, uint32_t &high) {
  using Team = typename Keys::Team;
  uint32_t *bins = &shared.bins[0][0];
  for (int i = threadIdx.x; i < kMostPasses * kBins; i += Team::threads()) bins[i] = 0;
  low = 0xffffffffu;
  high = 0;
  keys.visit([&](uint32_t k) {
    low = k > 0 ? min(low, k) : low;
    high = max(high, k);
  });
  low = __reduce_min_sync(kAllLanes, low);
  high = __reduce_max_sync(kAllLanes, high);
  const int lane = threadIdx.x % kWarp, warps = Team::threads() / kWarp;
  if (lane == 0) shared.low[threadIdx.x / kWarp] = low, shared.high[threadIdx.x / kWarp] = high;
  Team::sync();
  low = __reduce_min_sync(kAllLanes, lane < warps ? shared.low[lane] : 0xffffffffu);
  high = __reduce_max_sync(kAllLanes, lane < warps ? shared.high[lane] : 0u);
}

/* Where to cut so that `wanted` keys are taken, or up to `spare` more where that is found sooner; at least `wanted` take part. All threads
 * of the team call, after a barrier, and get the same. */
template <typename Keys>
__device__ __forceinline__ Cut find_cut(Keys &keys, int32_t wanted, SelectShared &shared, int32_t spare = 0) {
  Interval interval{0, 0, wanted, false, 0};
  find_span(keys, shared, interval.low, interval.high);
  for (int pass = 0; pass < kMostPasses && !interval.done; pass++) {
    const int bits = 32 - __clz(interval.high - interval.low), shift = bits > 8 ? bits - 8 : 0;
    uint32_t *bins = shared.bins[pass];
    keys.visit([&](uint32_t k) {
      if (k >= interval.low && k <= interval.high) atomicAdd(&bins[(k - interval.low) >> shift], 1u);
    });
    Keys::Team::sync();
    interval = narrow(interval, shift, bins, spare);
  }
  const bool ends_in_tie = interval.low == interval.high && interval.more > spare; /* else all that equal the lowest key are taken too */
  return {interval.low, ends_in_tie ? interval.wanted : INT32_MAX, ends_in_tie ? wanted : wanted + interval.more};
}

/* Turns the counts of a chunk's rounds and warps into what comes before each; `all` becomes their sum. One warp. */
__device__ __forceinline__ void scan_counts(int32_t entries, SelectShared &shared) {
  const int lane = threadIdx.x, share = (entries + kWarp - 1) / kWarp, begin = lane * share, end = min(begin + share, entries);
  uint32_t own = 0;
  for (int i = begin; i < end; i++) own += shared.before[i];
  uint32_t up_to_here = own;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, up_to_here, distance);
    up_to_here += lane >= distance ? other : 0;
  }
  uint32_t before = up_to_here - own;
  for (int i = begin; i < end; i++) {
    const uint32_t here = shared.before[i];
    shared.before[i] = before;
    before += here;
  }
  if (lane == kWarp - 1) shared.all = up_to_here;
}

/* Calls body(place, i) for the taken keys i, whose places are counted in order of i. */
template <int Items, typename Source, typename Team, typename Body>
__device__ __forceinline__ void visit_taken(Keys<Items, Source, Team> &keys, Cut cut, SelectShared &shared, const Body &body) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = Team::threads() / kWarp;
  const unsigned below = (1u << lane) - 1;
  int32_t written = 0, ties_seen = 0;
  for (int32_t base = 0; base < keys.count; base += keys.chunk()) {
    if (keys.count > keys.chunk()) keys.load(base);
#pragma unroll
    for (int i = 0; i < Items; i++) {
      const unsigned above = __ballot_sync(kAllLanes, keys.held[i] > cut.key), equal = __ballot_sync(kAllLanes, keys.held[i] == cut.key);
      if (lane == 0) shared.before[i * warps + warp] = __popc(above) | __popc(equal) << 16;
    }
    Team::sync();
    if (threadIdx.x < kWarp) scan_counts(Items * warps, shared);
    Team::sync();
#pragma unroll
    for (int i = 0; i < Items; i++) { /* to keep the votes of all rounds would take too many registers */
      const bool is_above = keys.held[i] > cut.key, equals = keys.held[i] == cut.key;
      const unsigned above = __ballot_sync(kAllLanes, is_above), equal = __ballot_sync(kAllLanes, equals);
      const uint32_t before = shared.before[i * warps + warp];
      const int32_t ties = ties_seen + static_cast<int32_t>(before >> 16) + __popc(equal & below);
      const bool is_tie = equals && ties < cut.ties;
      const int32_t place = written + static_cast<int32_t>(before & 0xffff) + __popc(above & below) + min(ties, cut.ties) - min(ties_seen, cut.ties);
      if (is_above || is_tie) body(place, keys.place(base, i));
    }
    const int32_t more_above = shared.all & 0xffff, more_ties = shared.all >> 16;
    written += more_above + min(ties_seen + more_ties, cut.ties) - min(ties_seen, cut.ties);
    ties_seen += more_ties;
    Team::sync();
  }
}

/* Writes value(i) of the taken keys in order of i. `out` has room for all of them. */
template <int Items, typename Source, typename Team, typename Value>
__device__ __forceinline__ void write_taken(Keys<Items, Source, Team> &keys, Cut cut, const Value &value, int32_t *out, SelectShared &shared) {
  visit_taken(keys, cut, shared, [&](int32_t place, int32_t i) { out[place] = value(i); });
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
template <typename Team = WholeBlock>
__device__ __forceinline__ void write_forced(const Forced &forced, int32_t pages, int32_t k, int32_t *out) {
  for (int32_t i = threadIdx.x; i < forced.first; i += Team::threads()) out[i] = i;
  for (int32_t i = threadIdx.x; i < forced.last; i += Team::threads()) out[k - forced.last + i] = pages - forced.last + i;
}

/* Counts a call's selections; by the block of the first row. */
__device__ inline void count_selection(const PageSelectParams &p, int32_t pages, bool first_row) {
  const ps_cache_desc &desc = p.cache.desc;
  if (threadIdx.x == 0 && pages > p.k) add_to_counter(p.cache.counters->rows_selected, 1);
  if (!first_row) return;
  bool any = false;
  for (int64_t b = threadIdx.x; b < p.sequences.sequences; b += blockDim.x) any |= int64_t(p.sequences.lengths[b]) > p.k * desc.page_size;
  if (__syncthreads_or(any) && threadIdx.x == 0) add_to_counter(p.cache.counters->selections, 1);
}

/* Takes all pages of a row that has no more than k. */
template <typename Team = WholeBlock>
__device__ inline void take_all(int32_t pages, int32_t *out, int32_t *count) {
  for (int32_t i = threadIdx.x; i < pages; i += Team::threads()) out[i] = i;
  if (threadIdx.x == 0) *count = pages;
}

}  // namespace ps
