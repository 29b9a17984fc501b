/* Parts of sampling, each by a whole block of kSampleThreads: all threads call them and get the same. Sums are integers, so that no
 * result depends on the order in which threads add. */
#pragma once

#include "../../sample_rules.h"
#include "../common.cuh"

namespace ps {

constexpr int kSampleThreads = 1024;
constexpr int kSampleWarps = kSampleThreads / kWarp;
constexpr int kSampleLoads = 8;          /* logits in flight a thread */
constexpr int kSorted = kSampleThreads;  /* tokens that can be sorted */
static_assert(kSampleWarps == kWarp, "One warp joins the results of all warps");
static_assert(sampling::kBins == 2 * kSampleThreads, "Every thread looks at two bins");

struct SampleShared {
  uint32_t counts[sampling::kBins], low[sampling::kBins], high[sampling::kBins]; /* of a bin: tokens, halves of their amount */
  uint64_t ranks[kSorted];
  uint64_t sums[kSampleWarps];
  uint64_t rest; /* of the target, once what ranks or stands before is subtracted */
  uint32_t bin, tokens;
  int32_t id;
};

struct Row {
  const float *logits; /* [width] */
  int64_t width;
  uint64_t best; /* rank */
};

/* Calls body(logit, id) for all tokens of the row, and with -infinity for some ids past it. */
template <typename Body>
__device__ __forceinline__ void visit(const Row &row, const Body &body) {
  for (int64_t base = threadIdx.x; base < row.width; base += kSampleThreads * kSampleLoads) {
    float logits[kSampleLoads];
#pragma unroll
    for (int load = 0; load < kSampleLoads; load++) {
      const int64_t id = base + load * kSampleThreads;
      logits[load] = id < row.width ? row.logits[id] : sampling::number_of(0x007fffffu);
    }
#pragma unroll
    for (int load = 0; load < kSampleLoads; load++) body(logits[load], base + load * kSampleThreads);
  }
}

__device__ __forceinline__ uint64_t max_of_warp(uint64_t rank) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) rank = max(rank, __shfl_xor_sync(kAllLanes, rank, distance));
  return rank;
}

/* The rank of the best token, or 0 where there is a NaN or no finite best one. */
__device__ inline uint64_t best_rank(const Row &row, SampleShared &shared) {
  float best = sampling::number_of(0x007fffffu);
  int64_t place = 0;
  bool nan = false;
  visit(row, [&](float logit, int64_t id) {
    nan = nan || logit != logit;
    if (logit > best) best = logit, place = id;
  });
  const uint64_t rank = max_of_warp(sampling::rank_of(best, place));
  if (threadIdx.x % kWarp == 0) shared.sums[threadIdx.x / kWarp] = rank;
  nan = __syncthreads_or(nan) != 0;
  const uint64_t winner = max_of_warp(shared.sums[threadIdx.x % kWarp]);
  return nan || winner < sampling::kFiniteRank || sampling::key_of_rank(winner) == sampling::kInfinityKey ? 0 : winner;
}

/* Sums of `own` over the threads before this one. */
__device__ inline uint64_t sum_before(uint64_t own, uint64_t &total, SampleShared &shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  auto up_to_here = [&](uint64_t value) {
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const uint64_t other = __shfl_up_sync(kAllLanes, value, distance);
      value += lane >= distance ? other : 0;
    }
    return value;
  };
  const uint64_t in_warp = up_to_here(own);
  __syncthreads(); /* the sums of an earlier call were read */
  if (lane == kWarp - 1) shared.sums[warp] = in_warp;
  __syncthreads();
  const uint64_t sum = shared.sums[lane], warps = up_to_here(sum);
  total = __shfl_sync(kAllLanes, warps, kWarp - 1);
  return __shfl_sync(kAllLanes, warps - sum, warp) + in_warp - own;
}

/* The first token, by rising id, at which the running amount exceeds target_of(sum of all amounts): first the part of the row that
 * a warp sums, then the part of that which a thread sums. */
template <typename Amount, typename TargetOf>
__device__ int32_t walk(const Row &row, const Amount &amount, const TargetOf &target_of, SampleShared &shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t part = (row.width + kSampleWarps - 1) / kSampleWarps, end = min(row.width, (warp + 1) * part);
  uint64_t own = 0, total;
#pragma unroll 8
  for (int64_t id = warp * part + lane; id < end; id += kWarp) own += amount(row.logits[id], id);
  uint64_t before = sum_before(own, total, shared);
  const uint64_t target = target_of(total);
  /* Sums of whole warps, so that exactly one of them holds the target. */
  const uint64_t warp_before = __shfl_sync(kAllLanes, before, 0), warp_end = __shfl_sync(kAllLanes, before + own, kWarp - 1);
  if (lane == 0 && warp_before <= target && target < warp_end) shared.bin = warp, shared.rest = target - warp_before;
  __syncthreads();
  const uint64_t rest = shared.rest;
  const int64_t share = (part + kSampleThreads - 1) / kSampleThreads, part_end = min(row.width, (shared.bin + 1) * part);
  const int64_t first = shared.bin * part + threadIdx.x * share, last = min(part_end, first + share);
  own = 0;
  for (int64_t id = first; id < last; id++) own += amount(row.logits[id], id);
  before = sum_before(own, total, shared);
  if (before <= rest && rest < before + own) {
    int64_t id = first;
    for (uint64_t left = rest - before, here; (here = amount(row.logits[id], id)) <= left; id++) left -= here;
    shared.id = static_cast<int32_t>(id);
  }
  __syncthreads();
  return shared.id;
}

/* Where find() ended: the tokens of keys from `key` on. */
struct Found {
  uint32_t key;
  uint64_t target, rest; /* of the running amount from the best token on, and what is left of it for the tokens of `key` */
  uint32_t tokens;       /* of keys from `key` on */
};

/* Adds 64 bits by halves: shared memory has no fast addition of them. Every carry of the lower half is seen by exactly one thread. */
__device__ __forceinline__ void add_amount(SampleShared &shared, uint32_t bin, uint64_t amount) {
  const uint32_t low = static_cast<uint32_t>(amount);
  const uint32_t high = static_cast<uint32_t>(amount >> 32) + (low != 0 && atomicAdd(&shared.low[bin], low) + low < low);
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

/* The bin in which the running amount, from the highest bin on, exceeds the target; to shared. */
template <typename TargetOf>
__device__ __forceinline__ void choose_bin(const TargetOf &target_of, SampleShared &shared) {
  const int upper = sampling::kBins - 1 - 2 * static_cast<int>(threadIdx.x), lower = upper - 1;
  const uint64_t first = uint64_t(shared.high[upper]) << 32 | shared.low[upper], second = uint64_t(shared.high[lower]) << 32 | shared.low[lower];
  uint64_t total, tokens;
  const uint64_t before = sum_before(first + second, total, shared);
  const uint64_t tokens_before = sum_before(shared.counts[upper] + shared.counts[lower], tokens, shared);
  const uint64_t target = target_of(total);
  if (before <= target && target < before + first + second) {
    const bool in_upper = target < before + first;
    shared.bin = in_upper ? upper : lower;
    shared.rest = target - before - (in_upper ? 0 : first);
    shared.tokens = static_cast<uint32_t>(tokens_before) + shared.counts[upper] + (in_upper ? 0 : shared.counts[lower]);
  }
  __syncthreads();
}

/* Among the tokens of at least rank `lowest`: the key at which the running amount, from the best token on, exceeds
 * target_of(sum of all amounts); or a key below it as soon as kSorted tokens at most lie above that. */
template <typename Amount, typename TargetOf>
__device__ Found find(const Row &row, uint64_t lowest, const Amount &amount, const TargetOf &target_of, SampleShared &shared) {
  Found found{};
  uint32_t above = 0;
  for (int pass = 0; pass < sampling::kPasses; pass++) {
    __syncthreads();
    for (int bin = threadIdx.x; bin < sampling::kBins; bin += kSampleThreads) shared.counts[bin] = shared.low[bin] = shared.high[bin] = 0;
    __syncthreads();
    visit(row, [&](float logit, int64_t id) {
      const uint32_t key = sampling::key_of(logit);
      if (sampling::rank_of(logit, id) < lowest || !sampling::agree(key, found.key, pass)) return;
      const uint32_t bin = sampling::bin_of(key, pass);
      atomicAdd(&shared.counts[bin], 1u);
      add_amount(shared, bin, amount(logit));
    });
    __syncthreads();
    choose_bin(
        [&](uint64_t total) {
          if (pass == 0) found.target = found.rest = target_of(total);
          return found.rest;
        },
        shared);
    found.rest = shared.rest;
    found.key |= shared.bin << sampling::shift_after(pass + 1);
    found.tokens = above + shared.tokens;
    if (found.tokens <= kSorted) break;
    above = found.tokens - shared.counts[shared.bin];
  }
  return found;
}

/* The rank at this thread's place among the tokens of at least rank `lowest`, the best first; 0 past the last. */
__device__ inline uint64_t sorted_rank(const Row &row, uint64_t lowest, SampleShared &shared) {
  const int place = threadIdx.x;
  __syncthreads();
  shared.ranks[place] = 0;
  if (place == 0) shared.tokens = 0;
  __syncthreads();
  visit(row, [&](float logit, int64_t id) {
    const uint64_t rank = sampling::rank_of(logit, id);
    if (rank >= lowest) shared.ranks[atomicAdd(&shared.tokens, 1u)] = rank;
  });
  __syncthreads();
  uint64_t rank = shared.ranks[place];
  for (int size = 2; size <= kSorted; size *= 2) { /* bitonic */
    for (int distance = size / 2; distance > 0; distance /= 2) {
      uint64_t other;
      if (distance < kWarp) {
        other = __shfl_xor_sync(kAllLanes, rank, distance);
      } else {
        __syncthreads();
        shared.ranks[place] = rank;
        __syncthreads();
        other = shared.ranks[place ^ distance];
      }
      const bool wants_larger = ((place & size) == 0) == ((place & distance) == 0);
      rank = wants_larger == (other > rank) ? other : rank;
    }
  }
  return rank;
}

}  // namespace ps
