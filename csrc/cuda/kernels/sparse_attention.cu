/* Score, selection and attention of a decode step in one call.
 *
 * Few rows (sequence and KV head) are bound by latency, not by bytes: three launches, each waiting for memory a few times over, cost
 * more than what they read. So one cluster of blocks takes a row from its scores to its answer in one launch: every block scores a
 * share of the pages, all make the same choice, and each attends to a share of it. Every page is scored, but for
 * very long contexts. Many rows are bound by bytes: page_choose.cu, then decode_attention.cu. */
#include <algorithm>

#include "block_select.cuh"
#include "cluster_join.cuh"
#include "cluster_select.cuh"
#include "decode_attention_mma.cuh"
#include "group_choice.cuh"
#include "page_score.h"

namespace ps {
namespace {

constexpr int kThreads = kSelectThreads;
constexpr int kTiles = 4; /* that a warp reads at once */
constexpr int64_t kLongShare = 1024; /* pages per block: beyond, groups are scored first where there are any */
constexpr int32_t kGathered = 2048;  /* keys: as many or fewer are passed to every block, which then chooses alone */
constexpr int kKeyItems = 8;         /* keys per thread, where the blocks choose together */
constexpr int32_t kPrefetchRows = 512; /* of statistics, per block */

/* Sizes of a launch, and of the room that a block's choice takes in shared memory. Units are pages, or groups of them. */
struct ChoiceSizes {
  int32_t cluster;   /* blocks per row */
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
};

/* Lowest and highest key that a warp has seen of those that take part. */
struct Span {
  uint32_t low, high;
};

struct ChoiceShared {
  alignas(16) Span spans[2][kMostBlocks][kThreads / kWarp]; /* in turn, because a block may still read those of the stage before */
  union {
    BlockSelectShared block;
    struct {
      SelectShared select;
      ClusterShared cluster;
    } apart;
  };
};

inline int64_t choice_bytes(const ChoiceSizes &sizes) {
  return sizeof(ChoiceShared) + int64_t(sizeof(int32_t)) * (2 * int64_t(sizes.units) + 2 * int64_t(sizes.groups) + sizes.page_keys);
}

/* Where things lie in a block's shared memory while it chooses, behind ChoiceShared. */
struct Room {
  uint32_t *keys;      /* [units] */
  int32_t *rows;       /* [units] their rows of statistics */
  int32_t *groups;     /* [groups] chosen, */
  int32_t *group_rows; /* [groups] and their rows */
  uint32_t *page_keys; /* [page_keys] of their pages */
};

__device__ __forceinline__ Room lay_out(const ChoiceSizes &sizes, unsigned char *memory) {
  uint32_t *keys = reinterpret_cast<uint32_t *>(memory + sizeof(ChoiceShared));
  int32_t *rows = reinterpret_cast<int32_t *>(keys + sizes.units), *groups = rows + sizes.units, *group_rows = groups + sizes.groups;
  return {keys, rows, groups, group_rows, reinterpret_cast<uint32_t *>(group_rows + sizes.groups)};
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

/* Scores the share. emit(i, score). */
template <typename T, int D, typename Emit>
__device__ __forceinline__ void score_stage(const Stage<T> &stage, const PlainQueries<T, D, 1> &q, int32_t heads, const Emit &emit) {
  const int g = threadIdx.x % kWarp / 4;
  auto row_of = [&](int32_t tile) { return stage.row(min(stage.share.begin + tile * kTilePages + g, stage.share.end - 1)); };
  score_tiles<T, D, 1, kTiles>(q, heads, stage.level, (stage.share.count() + kTilePages - 1) / kTilePages, row_of,
                               [&](int32_t tile, int i, float score) {
                                 const int32_t at = stage.share.begin + tile * kTilePages + i;
                                 if (at < stage.share.end) emit(at, score);
                               });
}

/* The best of keys that the blocks of the cluster hold parts of: body(place, i) in order. */
template <typename Body>
__device__ __forceinline__ void select_apart(const uint32_t *from, int32_t count, int32_t wanted, int32_t blocks, ChoiceShared &shared,
                                             const Body &body) {
  auto key = [&](int32_t i) { return from[i]; };
  Keys<kKeyItems, decltype(key)> keys(key, count);
  select_in_cluster(keys, wanted, blocks, shared.apart.select, shared.apart.cluster, [](const Interval &) {}, body);
}

/* The same of keys that this block has all of: their numbers to `out`, in order. Ends with a barrier. */
__device__ __forceinline__ void select_gathered(const uint32_t *from, int32_t count, int32_t wanted, const Span *spans, int32_t blocks,
                                                ChoiceShared &shared, int32_t *out) {
  const int lane = threadIdx.x % kWarp;
  Span span{0xffffffffu, 0};
  for (int i = lane; i < blocks * (kThreads / kWarp); i += kWarp) {
    const Span other = spans[i];
    span = {min(span.low, other.low), max(span.high, other.high)};
  }
  span = {__reduce_min_sync(kAllLanes, span.low), __reduce_max_sync(kAllLanes, span.high)};
  if (count <= 4 * kThreads) select_here<4>(from, count, span.low, span.high, wanted, shared.block, out);
  else select_here<kGathered / kThreads>(from, count, span.low, span.high, wanted, shared.block, out);
}

/* Passes this block's share of the keys, and the spans of its warps, to the others. One warp serves one block. */
__device__ __forceinline__ void pass_keys(uint32_t *keys, const Share &share, Span *spans, int32_t blocks) {
  const int lane = threadIdx.x % kWarp, target = threadIdx.x / kWarp, own = static_cast<int>(cluster_rank());
  if (target >= blocks || target == own) return;
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

template <typename T, int D>
__device__ __forceinline__ void prefetch_rows(const Level<T> &level, int32_t row, int32_t count) {
  prefetch_l2(level.means + int64_t(row) * D, count * D * int64_t(sizeof(T)));
  prefetch_line(level.std + row);
}

/* Fills `chosen` with k of more pages, the same in every block. What does not depend on earlier kernels comes before the wait for them.
 * Few keys are passed to all blocks, and each chooses alone; of many, the blocks choose together, because passing them takes longer.
 * take_queries() brings the row's to `queries`. Returns the rows of statistics that the cluster read. */
template <typename T, int D, typename TakeQueries>
__device__ __forceinline__ int32_t choose_pages(const SparseLaunch &launch, const RowPages &row, int32_t pages, const Room &room,
                                                const Chosen &chosen, ChoiceShared &shared, const QueryShared<D> &queries,
                                                const TakeQueries &take_queries) {
  const PageSelectParams &p = launch.choose.select;
  const PageScoreParams &score = launch.choose.score;
  const int32_t k = static_cast<int32_t>(p.k), blocks = launch.sizes.cluster;
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  const int32_t begin = forced.first, end = pages - forced.last; /* of the pages that are not forced */
  const int32_t shift = launch.sizes.has_groups && pages > kLongShare * blocks ? kGroupShift : 0, units = (pages + (1 << shift) - 1) >> shift;
  const int32_t taken = shift > 0 ? groups_taken(p, units) : 0;
  const bool gathered = units <= kGathered && taken * kGroupPages <= kGathered;
  const Share own = share_of(units, blocks, kTilePages), part = share_of(taken, blocks, 1);
  const Level<T> of_pages = page_level<T>(score, row.head);
  Stage<T> stage{shift > 0 ? group_level<T>(score, row.head) : of_pages,
                 units,
                 shift > 0 ? taken : forced.best,
                 own,
                 room.keys,
                 nullptr,
                 room.rows,
                 gathered ? 0 : own.begin};

  /* Rows of statistics: of the share at least. Its first ones are on their way to the L2 cache, where the writes of earlier kernels end too. */
  if (forced.best > 0) {
#pragma unroll 4
    for (int32_t unit = stage.origin + threadIdx.x; unit < (gathered ? units : own.end); unit += kThreads) {
      const int32_t at = physical_page(launch.attend, row, unit << shift) >> shift;
      room.rows[unit - stage.origin] = at;
      if (own.has(unit) && unit - own.begin < kPrefetchRows) prefetch_rows<T, D>(stage.level, at, 1);
    }
  }
  for (int32_t i = threadIdx.x; i < forced.first + forced.last; i += kThreads) {
    const int32_t place = i < forced.first ? i : k - forced.first - forced.last + i, page = i < forced.first ? i : pages - k + place;
    chosen.logical[place] = page;
    chosen.physical[place] = physical_page(launch.attend, row, page);
  }
  cluster_sync(); /* from here on all blocks are there to be written to */
  take_queries();
  if (forced.best == 0) return 0;

  PlainQueries<T, D, 1> q;
  q.length[0] = load_query_rows<T, D>(queries, row.heads, Form::kPlain, q.rows[0]);
#pragma unroll 1
  for (bool last = shift == 0;; last = true) {
    if (gathered) clear_bins(shared.block);
    Span span{0xffffffffu, 0};
    score_stage<T, D>(stage, q, row.heads, [&](int32_t i, float number) {
      const int32_t unit = stage.unit(i);
      const uint32_t key = !last || (unit >= begin && unit < end) ? ordered_key(number) : 0u;
      stage.keys[gathered ? i : i - stage.share.begin] = key;
      if (key > 0) span = {min(span.low, key), max(span.high, key)};
    });
    span = {__reduce_min_sync(kAllLanes, span.low), __reduce_max_sync(kAllLanes, span.high)};
    if (threadIdx.x % kWarp == 0) shared.spans[last][cluster_rank()][threadIdx.x / kWarp] = span;
    __syncthreads();
    if (gathered) {
      int32_t *taken_units = last ? chosen.logical + begin : room.groups, *taken_rows = last ? chosen.physical + begin : room.group_rows;
      pass_keys(stage.keys, stage.share, shared.spans[last][0], blocks);
      cluster_sync();
      select_gathered(stage.keys, stage.count, stage.wanted, shared.spans[last][0], blocks, shared, taken_units);
      for (int32_t place = threadIdx.x; place < stage.wanted; place += kThreads) {
        const int32_t i = taken_units[place];
        taken_rows[place] = stage.row(i);
        taken_units[place] = stage.unit(i);
      }
      __syncthreads();
    } else {
      auto take = [&](int32_t place, int32_t i) {
        const int32_t unit = stage.unit(stage.share.begin + i), at = stage.row(stage.share.begin + i);
        if (last) {
          write_everywhere(chosen.logical + begin + place, blocks, unit);
          write_everywhere(chosen.physical + begin + place, blocks, at);
        } else {
          write_remote(room.groups + place % part.most, place / part.most, unit);
          write_remote(room.group_rows + place % part.most, place / part.most, at);
        }
      };
      select_apart(stage.keys, stage.share.count(), stage.wanted, blocks, shared, take);
      cluster_sync();
    }
    if (last) break;
    stage = {of_pages,       taken * kGroupPages, forced.best,     {part.begin * kGroupPages, part.end * kGroupPages, 0},
             room.page_keys, room.groups,         room.group_rows, gathered ? 0 : part.begin};
  }
  return units + taken * kGroupPages;
}

/* Writes what was chosen, and counts what is done; by the threads of a row's first block that do not attend. */
__device__ __forceinline__ void report(const SparseLaunch &launch, const RowPages &row, int32_t pages, int32_t scored, const int32_t *chosen) {
  const PageSelectParams &p = launch.choose.select;
  const int32_t thread = threadIdx.x - kDecodeThreads;
  for (int32_t i = thread; i < row.count; i += kThreads - kDecodeThreads) p.selected[row.row * p.k + i] = chosen[i];
  ps_counters &counters = *p.cache.counters;
  if (row.row == 0 && thread < kWarp) {
    bool any = false;
    for (int64_t b = thread; b < p.sequences.sequences; b += kWarp) any |= int64_t(p.sequences.lengths[b]) > p.k * p.cache.desc.page_size;
    if (__any_sync(kAllLanes, any) && thread == 0) add_to_counter(counters.selections, 1);
  }
  if (thread != 0) return;
  p.counts[row.row] = row.count;
  if (pages > p.k) add_to_counter(counters.rows_selected, 1);
  add_to_counter(counters.pages_attended, row.count);
  add_to_counter(counters.pages_in_context, pages);
  add_to_counter(counters.pages_scored, scored);
}

/* Registers per thread of a block that fits beside one of a product of 16-bit weights (matvec_stream.cuh). */
constexpr int kRegisters = 152;

template <typename T, typename Kv, int D>
__global__ void __maxnreg__(kRegisters) sparse_kernel(const __grid_constant__ SparseLaunch launch) {
  extern __shared__ __align__(1024) unsigned char memory[];
  let_next_start(); /* the next product then requests its first weights while the projections end, and not while pages are waited for */

  /* the row */
  const DecodeAttentionParams &p = launch.attend.params;
  const ps_cache_desc &desc = p.cache.desc;
  RowPages row{};
  row.row = blockIdx.x / launch.sizes.cluster;
  row.sequence = row.row / desc.num_kv_heads;
  row.head = row.row % desc.num_kv_heads;
  row.heads = desc.num_query_heads / desc.num_kv_heads;
  row.first_query_head = row.head * row.heads;
  row.page_shift = __ffs(desc.page_size) - 1;
  row.length = checked_length(launch.attend.bad_index, p.sequences, row.sequence, desc.page_size);
  if (row.length == 0) { /* in all blocks of the cluster */
    wait_for_previous();
    return;
  }
  row.table = p.sequences.page_table + row.sequence * p.sequences.table_stride;
  const int32_t pages = (row.length + desc.page_size - 1) >> row.page_shift, rank = cluster_rank();

  /* its queries */
  __shared__ alignas(16) float heads[kRowHeads * QueryShared<D>::kStride];
  const QueryShared<D> queries{heads};
  auto take_queries = [&] {
    wait_for_previous();
    const float *from = queries_of(launch.attend, row);
    for (int i = threadIdx.x; i < row.heads * D; i += kThreads) heads[i / D * QueryShared<D>::kStride + i % D] = __ldcg(from + i);
    __syncthreads();
  };

  /* its pages */
  int32_t *lists = reinterpret_cast<int32_t *>(memory + launch.room_bytes + launch.inbox_bytes), scored = 0;
  const Chosen chosen{lists, lists + p.k};
  row.count = min(pages, static_cast<int32_t>(p.k));
  if (pages > p.k) { /* in the memory that the ring takes later */
    scored = choose_pages<T, D>(launch, row, pages, lay_out(launch.sizes, memory), chosen,
                                *reinterpret_cast<ChoiceShared *>(memory), queries, take_queries);
  } else {
    for (int32_t i = threadIdx.x; i < pages; i += kThreads) chosen.logical[i] = i, chosen.physical[i] = physical_page(launch.attend, row, i);
    cluster_sync(); /* as in choose_pages */
    take_queries();
  }

  /* its answer */
  row.selected = chosen.logical;
  row.physical = chosen.physical;
  row.splits = static_cast<int32_t>(splits_of(static_cast<int64_t>(row.count) << row.page_shift, launch.attend.rows));
  row.split = rank;
  row.begin = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * rank / row.splits), row.count);
  row.end = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * (rank + 1) / row.splits), row.count);
  HeadState<D> state;
  if (threadIdx.x >= kDecodeThreads) {
    if (rank == 0) report(launch, row, pages, scored, chosen.logical);
  } else if (row.begin < row.end) {
    attend_pages<Kv, D, kDecodeWarps>(launch.attend, row, Settled{heads, QueryShared<D>::kStride}, memory, state);
  }
  __syncthreads();
  const Inbox inbox(memory + launch.room_bytes, row, D);
  if (rank < row.splits) {
    merge_warps<Kv, D, kDecodeWarps>(state, row.heads, reinterpret_cast<float *>(memory),
                                     [&](int i, const float4 &sum, float maximum, float total) { inbox.pass(row, i, sum, maximum, total); });
  }
  cluster_sync();
  if (rank < row.splits) inbox.write(launch.attend, row, row.heads * D / 4);
}

/* Sizes of a cluster, the best first. Larger ones than 8 ran in two waves on an H100: 33 us instead of 17 for 8 rows. */
constexpr int32_t kClusterSizes[] = {8, 4};

constexpr int64_t kStaticBytes = kRowHeads * QueryShared<128>::kStride * sizeof(float) + 1024;

ChoiceSizes choice_sizes(const PageChooseParams &params, int32_t cluster) {
  const int64_t pages = params.score.sequences.max_pages, share = ceil_div(pages, cluster);
  const bool has_groups = params.score.cache.group_mean && share > kLongShare;
  auto room = [&](int64_t count) {
    return ceil_div(std::max(std::min<int64_t>(count, kGathered), ceil_div(count, cluster)), kTilePages) * kTilePages;
  };
  if (!has_groups) return {cluster, false, static_cast<int32_t>(room(pages)), 0, 0};
  const int64_t all = ceil_div(pages, kGroupPages), groups = std::min(groups_wanted(params.select, all), all);
  const int64_t units = std::max(room(std::min(pages, kLongShare * cluster)), room(all));
  const int64_t known = ceil_div(std::max(std::min<int64_t>(groups, kGathered / kGroupPages), ceil_div(groups, cluster)), 4) * 4;
  return {cluster, true, static_cast<int32_t>(units), static_cast<int32_t>(known), static_cast<int32_t>(known * kGroupPages)};
}

/* Tries to launch with so many blocks per row; false when they would not all run at once. */
template <typename T, typename Kv, int D>
bool launch_size(Backend &backend, SparseLaunch params, int32_t size) {
  const int64_t lists = 2 * params.choose.select.k * int64_t(sizeof(int32_t));
  params.sizes = choice_sizes(params.choose, size);
  params.room_bytes = static_cast<int32_t>(std::max<int64_t>(DecodeTile<Kv, D>::kSharedBytes, ceil_div(choice_bytes(params.sizes), 16) * 16));
  const ps_cache_desc &desc = params.choose.score.cache.desc;
  params.inbox_bytes = static_cast<int32_t>(Inbox::bytes(desc.num_query_heads / desc.num_kv_heads, D, size));
  const int64_t shared_bytes = params.room_bytes + params.inbox_bytes + lists;
  if (shared_bytes > backend.shared_bytes - kStaticBytes) return false;
  leave_no_cache("Could not launch sparse_attention", sparse_kernel<T, Kv, D>);
  return launch_clusters(backend, "Could not launch sparse_attention", sparse_kernel<T, Kv, D>, params.attend.rows, size, dim3(kThreads),
                         shared_bytes, params);
}

template <typename T, typename Kv>
bool launch_head_dim(Backend &backend, const SparseLaunch &params, int32_t size) {
  switch (params.attend.params.cache.desc.head_dim) {
    case 64: return launch_size<T, Kv, 64>(backend, params, size);
    case 96:
      if constexpr (kIsScaled<Kv>) return false;
      else return launch_size<T, Kv, 96>(backend, params, size);
    case 128: return launch_size<T, Kv, 128>(backend, params, size);
    default: return false;
  }
}

/* Launches clusters where they serve. They do not on other devices, for other scorers and shapes, for more rows than run at once, and for
 * a budget whose splits (decode_attention.cuh) would be more than a cluster's blocks. */
bool launch_as_clusters(Backend &backend, const SparseAttentionParams &params) {
  const PageScoreParams &score = params.choose.score;
  const ps_cache_desc &desc = score.cache.desc;
  if (backend.capability < 90 || !has_fast_score(desc) || desc.num_query_heads / desc.num_kv_heads > kRowHeads) return false;
  if (score.cache.mean_scale || (score.scorer != PS_UNIQUE && score.scorer != PS_MEAN)) return false;
  const SparseLaunch launch_params{params.choose, describe_decode(backend, params.attend), {}, 0, 0};
  const int64_t rows = launch_params.attend.rows, splits = splits_of(params.choose.select.k * desc.page_size, rows);
  for (int32_t size : kClusterSizes) {
    if (splits > size || rows * size > backend.multiprocessors) continue;
    bool launched = false;
    with_cache_types(desc, [&](auto type, auto kv) {
      using T = decltype(type);
      if constexpr (!std::is_same<T, float>::value) launched = launch_head_dim<T, decltype(kv)>(backend, launch_params, size);
    });
    if (launched) return true;
  }
  return false;
}

/* Launches attention beside the choice, row by row, where that is made by coarse copies and multiprocessors are not all done at once: they
 * then begin to attend while others still choose. */
bool launch_side_by_side(Backend &backend, const SparseAttentionParams &params) {
  const int64_t rows = params.choose.score.sequences.sequences * params.choose.score.cache.desc.num_kv_heads;
  if (backend.capability < 90 || rows <= backend.multiprocessors || chooses_by_groups(params.choose)) return false;
  DecodeLaunch attend = describe_decode(backend, params.attend);
  const RowFlags flags = describe_flags(attend);
  if (!coarse_choose(backend, params.choose, flags)) return false;
  attend.ready = flags.ready;
  decode_attention(backend, attend);
  return true;
}

}  // namespace

void sparse_attention(Backend &backend, const SparseAttentionParams &params) {
  if (launch_as_clusters(backend, params) || launch_side_by_side(backend, params)) return;
  page_choose(backend, params.choose);
  decode_attention(backend, params.attend);
}

}  // namespace ps
