/* The choice of a row's pages by a cluster of blocks: every block scores a share of the pages, or of groups of them first, and all make the same
 * choice. */
#pragma once

#include "block_select.cuh"
#include "cluster_select.cuh"
#include "decode_attention.cuh"
#include "group_choice.cuh"
#include "prefetch.cuh"

namespace ps {
namespace {

constexpr int kThreads = 256; /* of a block */
constexpr int kTiles = 3; /* that a warp requests at once */
constexpr int64_t kLongShare = 1024; /* pages per block: beyond, groups are scored first where there are any */
/* Keys: as many or fewer are passed to every block, which then chooses alone; 163,840 tokens of groups. */
constexpr int32_t kGathered = kMostSelected;
constexpr int kKeyItems = 8;         /* keys per thread, where the blocks choose together */
constexpr int32_t kPrefetchRows = 512; /* of statistics, per block */

/* Sizes of a launch, and of the room that a block's choice takes in shared memory. Units are pages, or groups of them. */
struct ChoiceSizes {
  int32_t cluster;   /* blocks per row, a power of two */
  int32_t has_groups;
  int32_t units;     /* that a block knows the rows and keys of, at most */
  int32_t groups;    /* chosen that a block knows, at most */
  int32_t page_keys; /* of their pages */
};

struct SparseLaunch {
  PageChooseParams choose;
  DecodeLaunch attend;
  ChoiceSizes sizes;
  int32_t room_bytes; /* of shared memory, for the choice and then for the ring; the inbox and the chosen pages lie behind */
  int32_t inbox_bytes;
  int32_t *appended; /* [rows], set when the newest token of a row lies in its page, and zero between launches; nullptr without an append */
};

struct alignas(kLineBytes) ChoiceShared {
  alignas(16) Span spans[2][kMostBlocks][kThreads / kWarp]; /* in turn, because a block may still read those of the stage before */
  union {
    BlockSelectShared<kThreads> block;
    struct {
      SelectShared select;
      ClusterShared cluster;
    } apart;
  };
};

/* Numbers of 4 bytes before the ring: whole lines. */
PS_HOST_DEVICE inline int64_t choice_numbers(const ChoiceSizes &sizes) {
  constexpr int64_t kLineNumbers = kLineBytes / sizeof(int32_t);
  return (2 * int64_t(sizes.units) + 2 * int64_t(sizes.groups) + sizes.page_keys + kLineNumbers - 1) / kLineNumbers * kLineNumbers;
}

inline int64_t choice_bytes(const ChoiceSizes &sizes, int64_t head_dim) {
  return sizeof(ChoiceShared) + sizeof(int32_t) * choice_numbers(sizes) + kTiles * kThreads * (head_dim / 32 * sizeof(uint4) + sizeof(float));
}

/* Where things lie in a block's shared memory while it chooses, behind ChoiceShared. */
struct Room {
  uint32_t *keys;      /* [units] */
  int32_t *rows;       /* [units] their rows of statistics */
  int32_t *groups;     /* [groups] chosen, */
  int32_t *group_rows; /* [groups] and their rows */
  uint32_t *page_keys; /* [page_keys] of their pages */
  uint4 *ring;         /* ScoreRing */
};

__device__ __forceinline__ Room lay_out(const ChoiceSizes &sizes, unsigned char *memory) {
  uint32_t *keys = reinterpret_cast<uint32_t *>(memory + sizeof(ChoiceShared));
  int32_t *rows = reinterpret_cast<int32_t *>(keys + sizes.units), *groups = rows + sizes.units, *group_rows = groups + sizes.groups;
  return {keys,
          rows,
          groups,
          group_rows,
          reinterpret_cast<uint32_t *>(group_rows + sizes.groups),
          reinterpret_cast<uint4 *>(keys + choice_numbers(sizes))};
}

/* A block's share of `count` things: [begin, end). */
struct Share {
  int32_t begin, end, most;

  __device__ __forceinline__ int32_t count() const { return end - begin; }
  __device__ __forceinline__ bool has(int32_t i) const { return i >= begin && i < end; }
};

/* In runs of a multiple of `step`. */
__device__ __forceinline__ Share share_of(int32_t count, int32_t cluster, int32_t step) {
  const int32_t most = ((count + cluster - 1) / cluster + step - 1) / step * step, begin = min(static_cast<int32_t>(cluster_rank()) * most, count);
  return {begin, min(begin + most, count), most};
}

/* The pages that a row attends to, in every block of its cluster. */
struct Chosen {
  int32_t *logical, *physical; /* [k] */
};

/* Units that are scored at once: all pages, all groups, or the pages of the chosen groups. Their keys are numbered over the cluster. */
template <typename T>
struct Stage {
  Level<T> level;
  int32_t count, wanted;
  Share share;           /* of the keys */
  uint32_t *keys;        /* of all units where they are gathered, else of the share */
  const int32_t *groups; /* of 8 keys each, or nullptr for key i of unit i */
  const int32_t *rows;   /* of statistics, of the groups or else of the units */
  int32_t origin;        /* the first of them */

  __device__ __forceinline__ int32_t unit(int32_t i) const {
    return groups != nullptr ? groups[(i >> kGroupShift) - origin] << kGroupShift | i % kGroupPages : i;
  }
  __device__ __forceinline__ int32_t row(int32_t i) const {
    return groups != nullptr ? rows[(i >> kGroupShift) - origin] << kGroupShift | i % kGroupPages : rows[i - origin];
  }
};

/* Scores a share, a tile of 8 units after the other. Rows of statistics come to a ring in shared memory, kTiles of a warp at once; each lane reads
 * what it has copied. Loops, because code that a step runs once per layer takes time to load. */
template <typename T, int D>
struct ScoreRing {
  static constexpr int kParts = D / 32; /* of 16 bytes, that a lane has of a row */
  uint4 *const rows;                    /* [kTiles, kParts, kThreads] */
  float *const stds;                    /* [kTiles, kThreads] */

  __device__ __forceinline__ explicit ScoreRing(uint4 *memory) : rows(memory), stds(reinterpret_cast<float *>(memory + kTiles * kParts * kThreads)) {}

  /* The first unit of a warp's tile: neighbouring warps take neighbouring tiles. */
  static __device__ __forceinline__ int32_t first_of(const Share &share, int tile) {
    return share.begin + (tile * (kThreads / kWarp) + static_cast<int32_t>(threadIdx.x) / kWarp) * kTilePages;
  }

  __device__ __forceinline__ void request(const Stage<T> &stage, int tile) const {
    const int32_t first = first_of(stage.share, tile);
    if (first < stage.share.end) {
      const int64_t at = stage.row(min(first + static_cast<int32_t>(threadIdx.x) % kWarp / 4, stage.share.end - 1));
      const T *const own = stage.level.means + at * D + threadIdx.x % 4 * 8;
      const int slot = tile % kTiles;
#pragma unroll
      for (int j = 0; j < kParts; j++) copy_async(shared_address(rows + (slot * kParts + j) * kThreads + threadIdx.x), own + 32 * j, true);
      copy_number_async(shared_address(stds + slot * kThreads + threadIdx.x), stage.level.std + at);
    }
    copy_commit();
  }

  /* Requests the first tiles. */
  __device__ __forceinline__ void begin(const Stage<T> &stage) const {
#pragma unroll 1
    for (int tile = 0; tile < kTiles; tile++) request(stage, tile);
  }

  /* emit(i, score) for all units of the share, whose first tiles have been requested. */
  template <typename Emit>
  __device__ __forceinline__ void score(const Stage<T> &stage, const PlainQueries<T, D, 1> &q, int32_t heads, const Emit &emit) const {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int tile = 0; first_of(stage.share, tile) < stage.share.end; tile++) {
      copy_wait<kTiles - 1>();
      const int slot = tile % kTiles;
      PageRow<T, D> row;
#pragma unroll
      for (int j = 0; j < kParts; j++) row.parts[j] = rows[(slot * kParts + j) * kThreads + threadIdx.x];
      const float score = score_tile<T, D, 1>(q, heads, stage.level.lambda, row, stds[slot * kThreads + threadIdx.x], 1.f);
      const int32_t unit = first_of(stage.share, tile) + 2 * t + g;
      if (g < 2 && unit < stage.share.end) emit(unit, score);
      request(stage, tile + kTiles);
    }
  }
};

/* The best of keys that the blocks of the cluster hold parts of: body(place, i) in order. */
template <typename Body>
__device__ __forceinline__ void select_apart(const uint32_t *from, int32_t count, int32_t wanted, int32_t blocks, ChoiceShared &shared,
                                             const Body &body) {
  auto key = [&](int32_t i) { return from[i]; };
  Keys<kKeyItems, decltype(key)> keys(key, count);
  select_in_cluster(keys, wanted, blocks, shared.apart.select, shared.apart.cluster, body);
}

/* The same of keys that this block has all of: their numbers to `out`, in order. Ends with a barrier. */
__device__ __forceinline__ void select_gathered(const uint32_t *from, int32_t count, int32_t wanted, const Span *spans, int32_t blocks,
                                                ChoiceShared &shared, int32_t *out) {
  const int lane = threadIdx.x % kWarp;
  Span span = no_keys();
#pragma unroll 1
  for (int i = lane; i < blocks * (kThreads / kWarp); i += kWarp) span = joined(span, spans[i]);
  select_here(from, count, joined_lanes(span), wanted, shared.block, out);
}

/* Passes this block's share of the keys, and the spans of its warps, to the others. One warp serves one block. */
__device__ __forceinline__ void pass_keys(uint32_t *keys, const Share &share, Span *spans, int32_t blocks) {
  const int lane = threadIdx.x % kWarp, target = threadIdx.x / kWarp, own = static_cast<int>(cluster_rank());
  if (target >= blocks || target == own) return;
#pragma unroll 1
  for (int32_t i = share.begin + 4 * lane; i < share.end; i += 4 * kWarp) write_remote(keys + i, target, *reinterpret_cast<const uint4 *>(keys + i));
  if (lane >= kThreads / kWarp / 2) return;
  Span *two = spans + own * (kThreads / kWarp) + 2 * lane;
  write_remote(two, target, *reinterpret_cast<const uint4 *>(two));
}

__device__ __forceinline__ void write_everywhere(void *own, int32_t blocks, uint32_t value) {
#pragma unroll
  for (int block = 0; block < kMostBlocks; block++) {
    if (block < blocks) write_remote(own, block, value);
  }
}

/* Brings neighbouring rows of statistics to the L2 cache, where the writes of earlier kernels end too: this may run before they are done. */
template <typename T, int D>
__device__ __forceinline__ void prefetch_rows(const Level<T> &level, int32_t row, int32_t count) {
  prefetch_l2(level.means + int64_t(row) * D, count * D * int64_t(sizeof(T)));
  prefetch_line(level.std + row);
}

/* The same of a page's keys and values. */
__device__ __forceinline__ void prefetch_page(const DecodeLaunch &launch, const RowPages &row, int32_t physical) {
  const CacheView &cache = launch.params.cache;
  const Layout layout(cache.desc);
  const int64_t number_bytes = cache.key_scale ? 1 : 2, from = layout.tokens(launch.params.layer, row.head, physical) * number_bytes,
                bytes = layout.page_size * layout.head_dim * number_bytes;
  prefetch_l2(static_cast<const char *>(cache.keys) + from, bytes);
  prefetch_l2(static_cast<const char *>(cache.values) + from, bytes);
}

__device__ __forceinline__ bool scores_groups(const SparseLaunch &launch, int32_t pages) {
  return launch.sizes.has_groups && pages > kLongShare * launch.sizes.cluster;
}

/* Whether the choice depends on the newest page, or on its group. */
__device__ __forceinline__ bool scores_newest(const Forced &forced) { return forced.best > 0 && forced.last == 0; }

/* Fills `chosen` with k of more pages, the same in every block. What does not depend on earlier kernels comes before the wait for them.
 * Few keys are passed to all blocks, and each chooses alone; of many, the blocks choose together, because passing them takes longer.
 * take_queries() brings the row's to `queries`; wait_for_append() waits until the newest token lies in its page. ReadsEarly: no earlier kernel that
 * may still run writes statistics. Returns the rows of statistics that the cluster read. */
template <typename T, int D, bool ReadsEarly, typename TakeQueries, typename WaitForAppend>
__device__ __forceinline__ int32_t choose_pages(const SparseLaunch &launch, const RowPages &row, int32_t pages, const Room &room,
                                                const Chosen &chosen, ChoiceShared &shared, const QueryShared<D> &queries,
                                                const TakeQueries &take_queries, const WaitForAppend &wait_for_append) {
  const PageSelectParams &p = launch.choose.select;
  const PageScoreParams &score = launch.choose.score;
  const int32_t k = static_cast<int32_t>(p.k), blocks = launch.sizes.cluster;
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  const int32_t begin = forced.first, end = pages - forced.last; /* of the pages that are not forced */
  const int32_t shift = scores_groups(launch, pages) ? kGroupShift : 0, all = (pages + (1 << shift) - 1) >> shift;
  const int32_t taken = shift > 0 ? groups_taken(p, all) : 0, given = shift > 0 ? groups_given(forced) : 0, units = all - given;
  const bool gathered = units <= kGathered && taken * kGroupPages <= kGathered;
  const Share own = share_of(units, blocks, kTilePages), part = share_of(taken, blocks, 1);
  const Level<T> of_pages = page_level<T>(score, row.head);
  Stage<T> stage{shift > 0 ? group_level<T>(score, row.head) : of_pages,
                 units,
                 shift > 0 ? taken - given : forced.best,
                 own,
                 room.keys,
                 nullptr,
                 room.rows,
                 gathered ? 0 : own.begin};

  /* Rows of statistics: of the share at least. Unless they are requested below, its first ones are on their way to the L2 cache. */
  if (forced.best > 0) {
#pragma unroll 4
    for (int32_t unit = stage.origin + threadIdx.x; unit < (gathered ? all : own.end); unit += kThreads) {
      const int32_t at = physical_page(launch.attend, row, unit << shift) >> shift;
      room.rows[unit - stage.origin] = at;
      if (!ReadsEarly && own.has(unit) && unit - own.begin < kPrefetchRows) prefetch_rows<T, D>(stage.level, at, 1);
    }
  }
  for (int32_t i = threadIdx.x; i < forced.first + forced.last; i += kThreads) {
    const int32_t place = i < forced.first ? i : k - forced.first - forced.last + i, page = i < forced.first ? i : pages - k + place;
    chosen.logical[place] = page;
    chosen.physical[place] = physical_page(launch.attend, row, page);
  }
  cluster_sync(); /* from here on all blocks are there to be written to */
  const ScoreRing<T, D> ring(room.ring);
  bool waits = ReadsEarly && scores_newest(forced) && own.count() > 0 && own.end == units; /* the tile of the newest page comes last */
  Stage<T> part_of_stage = stage;
  if (waits) part_of_stage.share.end = own.begin + (own.count() - 1) / kTilePages * kTilePages;
  bool requested = ReadsEarly && forced.best > 0;
  if (requested) {
    ring.begin(part_of_stage);
    /* The rows behind those of the first tiles come to the L2 cache now: sooner, and the weights that still pass through it would push them out. */
    wait_for_previous();
    const int32_t behind = own.begin + kTiles * kThreads / kWarp * kTilePages + threadIdx.x;
    if (behind < min(own.end, own.begin + kPrefetchRows)) prefetch_rows<T, D>(stage.level, room.rows[behind - stage.origin], 1);
  }
  take_queries();
  if (forced.best == 0) return 0;

  PlainQueries<T, D, 1> q;
  q.length[0] = load_query_rows<T, D>(queries, row.heads, Form::kPlain, q.rows[0]);
#pragma unroll 1
  for (bool last = shift == 0;; last = true) {
    if (gathered) clear_bins(shared.block);
    Span span = no_keys();
#pragma unroll 1
    while (true) {
      if (!requested) ring.begin(part_of_stage);
      requested = false;
      ring.score(part_of_stage, q, row.heads, [&](int32_t i, float number) {
        const int32_t unit = stage.unit(i);
        const uint32_t key = !last || (unit >= begin && unit < end) ? ordered_key(number) : 0u;
        stage.keys[gathered ? i : i - stage.share.begin] = key;
        span = with_key(span, key);
      });
      if (!waits) break;
      waits = false;
      wait_for_append();
      part_of_stage.share = {part_of_stage.share.end, stage.share.end, 0};
    }
    span = joined_lanes(span);
    if (threadIdx.x % kWarp == 0) shared.spans[last][cluster_rank()][threadIdx.x / kWarp] = span;
    __syncthreads();
    if (gathered) {
      int32_t *taken_units = last ? chosen.logical + begin : room.groups, *taken_rows = last ? chosen.physical + begin : room.group_rows;
      pass_keys(stage.keys, stage.share, shared.spans[last][0], blocks);
      cluster_sync();
      select_gathered(stage.keys, stage.count, stage.wanted, shared.spans[last][0], blocks, shared, taken_units);
#pragma unroll 1
      for (int32_t place = threadIdx.x; place < (last ? stage.wanted : taken); place += kThreads) {
        const int32_t i = place < stage.wanted ? taken_units[place] : units, at = stage.row(i); /* of groups the given one comes last */
        taken_rows[place] = at;
        taken_units[place] = stage.unit(i);
        if ((place & (blocks - 1)) != static_cast<int32_t>(cluster_rank())) continue; /* the blocks share out what is to come from memory */
        if (last) prefetch_page(launch.attend, row, at);
        else prefetch_rows<T, D>(of_pages, at << kGroupShift, kGroupPages);
      }
      __syncthreads();
    } else {
      auto take = [&](int32_t place, int32_t unit, int32_t at) {
        if (last) {
          write_everywhere(chosen.logical + begin + place, blocks, unit);
          write_everywhere(chosen.physical + begin + place, blocks, at);
        } else {
          write_remote(room.groups + place % part.most, place / part.most, unit);
          write_remote(room.group_rows + place % part.most, place / part.most, at);
        }
      };
      if (!last && given > 0 && cluster_rank() == 0 && threadIdx.x == 0) {
        take(stage.wanted, units, physical_page(launch.attend, row, units << kGroupShift) >> kGroupShift);
      }
      select_apart(stage.keys, stage.share.count(), stage.wanted, blocks, shared,
                   [&](int32_t place, int32_t i) { take(place, stage.unit(stage.share.begin + i), stage.row(stage.share.begin + i)); });
      cluster_sync();
    }
    if (last) break;
    stage = {of_pages,       taken * kGroupPages, forced.best,     {part.begin * kGroupPages, part.end * kGroupPages, 0},
             room.page_keys, room.groups,         room.group_rows, gathered ? 0 : part.begin};
    part_of_stage = stage;
  }
  return units + taken * kGroupPages;
}

}  // namespace
}  // namespace ps
