/* The choice of a row's pages by a cluster of blocks that score a share each: every block keeps its best, reads the others' best from
 * their shared memory, and makes the same choice as they do. */
#pragma once

#include "cluster.cuh"
#include "group_choice.cuh"
#include "select.cuh"

namespace ps {

constexpr int kKeyItems = 8, kGatheredItems = 8; /* keys per thread */
constexpr int32_t kFewCandidates = 256;          /* a share that is so small is passed on whole */

/* What a launch knows of the room in shared memory. */
struct ChoiceSizes {
  int32_t cluster;    /* blocks per row */
  int32_t keys;       /* scores that a block keeps at most */
  int32_t candidates; /* that a block passes on at most */
  int32_t groups;     /* chosen per row at most; 0 if every page is scored */
};

inline PS_HOST_DEVICE int64_t choice_bytes(const ChoiceSizes &sizes) {
  return 4 * (int64_t(sizes.keys) + 2 * int64_t(sizes.candidates) * (1 + sizes.cluster) + sizes.groups);
}

/* Where things lie in a block's shared memory. */
struct Room {
  uint32_t *keys;      /* [keys] of this block's share */
  uint32_t *best_keys; /* [candidates] of this block */
  int32_t *best;       /* [candidates] the pages or groups that they belong to */
  uint32_t *all_keys;  /* [cluster, candidates] everybody's, 0 where there is none */
  int32_t *all;        /* [cluster, candidates] */
  int32_t *groups;     /* [groups] chosen */
};

__device__ __forceinline__ Room lay_out(const ChoiceSizes &sizes, unsigned char *memory) {
  uint32_t *keys = reinterpret_cast<uint32_t *>(memory), *best_keys = keys + sizes.keys, *all_keys = best_keys + 2 * sizes.candidates;
  int32_t *all = reinterpret_cast<int32_t *>(all_keys + sizes.cluster * sizes.candidates);
  return {keys, best_keys, reinterpret_cast<int32_t *>(best_keys + sizes.candidates), all_keys, all, all + sizes.cluster * sizes.candidates};
}

/* Leaves candidates in room.best*, in order: the whole share of `count` keys where `handed` places hold it, else the best of those that
 * take part. Places beyond get the key 0. After a barrier. */
template <typename ValueOf>
__device__ __forceinline__ void keep_best(const Room &room, int32_t count, int32_t handed, const ValueOf &value_of, SelectShared &shared) {
  if (count <= handed) {
    for (int32_t i = threadIdx.x; i < handed; i += blockDim.x) {
      room.best_keys[i] = i < count ? room.keys[i] : 0;
      room.best[i] = i < count ? value_of(i) : 0;
    }
    return;
  }
  int32_t part = 0;
  for (int32_t first = 0; first < count; first += blockDim.x) {
    part += __syncthreads_count(first + static_cast<int32_t>(threadIdx.x) < count && room.keys[first + threadIdx.x] > 0);
  }
  const int32_t kept = min(part, handed);
  for (int32_t i = threadIdx.x; i < handed; i += blockDim.x) room.best_keys[i] = 0;
  if (kept == 0) return;
  auto key = [&](int32_t i) { return room.keys[i]; };
  Keys<kKeyItems, decltype(key)> keys(key, count);
  const Cut cut = find_cut(keys, kept, shared);
  write_taken(keys, cut, [](int32_t i) { return i; }, room.best, shared); /* ends with a barrier */
  for (int32_t i = threadIdx.x; i < kept; i += blockDim.x) {
    const int32_t place = room.best[i];
    room.best_keys[i] = room.keys[place];
    room.best[i] = value_of(place);
  }
}

/* Writes the `wanted` best of the cluster to `out`, in order; the same in every block. This block has `count` keys, no block more than
 * `most`. The cluster has then arrived once more than it has waited: others may still read room.best*. */
template <typename ValueOf>
__device__ __forceinline__ void pick_best(const Room &room, const ChoiceSizes &sizes, int32_t count, int32_t most, int32_t wanted,
                                          const ValueOf &value_of, int32_t *out, SelectShared &shared) {
  const int32_t handed = most <= kFewCandidates ? most : wanted;
  keep_best(room, count, handed, value_of, shared);
  cluster_arrive();
  cluster_wait();
#pragma unroll 4
  for (int32_t i = threadIdx.x; i < sizes.cluster * handed; i += blockDim.x) {
    room.all_keys[i] = read_remote(room.best_keys + i % handed, i / handed);
    room.all[i] = static_cast<int32_t>(read_remote(room.best + i % handed, i / handed));
  }
  cluster_arrive();
  __syncthreads();
  auto key = [&](int32_t i) { return room.all_keys[i]; };
  Keys<kGatheredItems, decltype(key)> keys(key, sizes.cluster * handed);
  const Cut cut = find_cut(keys, wanted, shared);
  write_taken(keys, cut, [&](int32_t i) { return room.all[i]; }, out, shared);
}

}  // namespace ps
