/* Score, selection and attention of a decode step in one call.
 *
 * Few rows (sequence and KV head) are bound by latency, not by bytes: three launches, each waiting for memory a few times over, cost
 * more than what they read. So one cluster of blocks takes a row from its scores to its answer in one launch: every block scores a
 * share of the pages, all make the same choice (cluster_choice.cuh), and each attends to a share of it. Every page is scored, but for
 * very long contexts. Many rows are bound by bytes: page_choose.cu, then decode_attention.cu. */
#include <algorithm>

#include "cluster_choice.cuh"
#include "decode_attention_mma.cuh"
#include "page_score.h"

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kTiles = 4; /* that a warp reads at once */
constexpr int64_t kLongShare = 1024; /* pages per block: beyond, groups are scored first where there are any */

struct SparseLaunch {
  PageChooseParams choose;
  DecodeLaunch attend;
  ChoiceSizes sizes;
};

/* A block's share of `count` things: [begin, end). */
struct Share {
  int32_t begin, end, most;
};

__device__ __forceinline__ Share share_of(int32_t count, int32_t cluster) {
  const int32_t most = (count + cluster - 1) / cluster, begin = min(static_cast<int32_t>(cluster_rank()) * most, count);
  return {begin, min(begin + most, count), most};
}

/* Scores the pages of the row, shared out, and picks among those in [first, last). */
template <typename T, int D>
__device__ __forceinline__ void choose_of_all(const SparseLaunch &launch, const RowPages &row, const PlainQueries<T, D, 1> &q, int32_t pages,
                                              int32_t first, int32_t last, int32_t wanted, const Room &room, int32_t *out, SelectShared &shared) {
  const Share share = share_of(pages, launch.sizes.cluster);
  const int g = threadIdx.x % kWarp / 4;
  auto row_of = [&](int32_t tile) { return physical_page(launch.attend, row, min(share.begin + tile * kTilePages + g, share.end - 1)); };
  score_tiles<T, D, 1, kTiles>(q, row.heads, page_level<T>(launch.choose.score, row.head), (share.end - share.begin + kTilePages - 1) / kTilePages,
                               row_of, [&](int32_t tile, int i, float score) {
                                 const int32_t page = share.begin + tile * kTilePages + i;
                                 if (page < share.end) room.keys[page - share.begin] = page >= first && page < last ? ordered_key(score) : 0u;
                               });
  __syncthreads();
  pick_best(room, launch.sizes, share.end - share.begin, share.most, wanted, [&](int32_t i) { return share.begin + i; }, out, shared);
}

/* The same in two levels: groups of pages, then the pages of the best groups. */
template <typename T, int D>
__device__ __forceinline__ void choose_of_groups(const SparseLaunch &launch, const RowPages &row, const PlainQueries<T, D, 1> &q, int32_t pages,
                                                 int32_t first, int32_t last, int32_t wanted, const Room &room, int32_t *out, SelectShared &shared) {
  const int32_t all = (pages + kGroupPages - 1) >> kGroupShift, taken = groups_taken(launch.choose.select, all);
  const Share share = share_of(all, launch.sizes.cluster);
  const int g = threadIdx.x % kWarp / 4;
  auto group_row = [&](int32_t tile) {
    return physical_page(launch.attend, row, min(share.begin + tile * kTilePages + g, share.end - 1) << kGroupShift) >> kGroupShift;
  };
  score_tiles<T, D, 1, kTiles>(q, row.heads, group_level<T>(launch.choose.score, row.head), (share.end - share.begin + kTilePages - 1) / kTilePages,
                               group_row, [&](int32_t tile, int i, float score) {
                                 const int32_t group = share.begin + tile * kTilePages + i;
                                 if (group < share.end) room.keys[group - share.begin] = ordered_key(score);
                               });
  __syncthreads();
  pick_best(room, launch.sizes, share.end - share.begin, share.most, taken, [&](int32_t i) { return share.begin + i; }, room.groups, shared);

  const Share part = share_of(taken, launch.sizes.cluster);
  auto page_row =
      [&](int32_t tile) { /* a group's pages lie side by side */
                          return (physical_page(launch.attend, row, room.groups[part.begin + tile] << kGroupShift) >> kGroupShift << kGroupShift) + g;
      };
  score_tiles<T, D, 1, kTiles>(q, row.heads, page_level<T>(launch.choose.score, row.head), part.end - part.begin, page_row,
                               [&](int32_t tile, int i, float score) {
                                 const int32_t page = (room.groups[part.begin + tile] << kGroupShift) + i;
                                 room.keys[tile * kGroupPages + i] = page >= first && page < last ? ordered_key(score) : 0u;
                               });
  cluster_wait(); /* nobody reads room.best* any more */
  __syncthreads();
  auto page_of = [&](int32_t i) { return (room.groups[part.begin + (i >> kGroupShift)] << kGroupShift) + i % kGroupPages; };
  pick_best(room, launch.sizes, (part.end - part.begin) * kGroupPages, part.most * kGroupPages, wanted, page_of, out, shared);
}

/* Fills `chosen` with k of more pages, the same in every block of the cluster. The cluster has then arrived once more than it has
 * waited. Returns the rows of statistics that the cluster read. */
template <typename T, int D>
__device__ __forceinline__ int32_t choose_pages(const SparseLaunch &launch, const RowPages &row, int32_t pages, const Room &room, int32_t *chosen,
                                                SelectShared &shared) {
  const PageSelectParams &p = launch.choose.select;
  const PageScoreParams &score = launch.choose.score;
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  const int32_t first = forced.first, last = pages - forced.last;
  write_forced(forced, pages, static_cast<int32_t>(p.k), chosen);
  if (forced.best == 0) {
    cluster_arrive();
    __syncthreads();
    return 0;
  }
  PlainQueries<T, D, 1> q;
  load_queries(score.q.row(row.sequence) + row.first_query_head * D, row.heads, q);
  if (launch.sizes.groups > 0 && pages > kLongShare * launch.sizes.cluster) {
    choose_of_groups<T, D>(launch, row, q, pages, first, last, forced.best, room, chosen + first, shared);
    const int32_t all = (pages + kGroupPages - 1) >> kGroupShift;
    return all + groups_taken(p, all) * kGroupPages;
  }
  choose_of_all<T, D>(launch, row, q, pages, first, last, forced.best, room, chosen + first, shared);
  return pages;
}

/* Joins the cluster's answers, in the order and arithmetic of join_splits. Every block writes a share of the row. */
template <int D>
__device__ __forceinline__ void join_cluster(const SparseLaunch &launch, const RowPages &row, const Merged &merged, JoinShared &shared) {
  const int32_t rank = cluster_rank();
  auto part_of = [&](int split, int head) {
    return float2{__uint_as_float(read_remote(merged.maxima + head, split)), __uint_as_float(read_remote(merged.totals + head, split))};
  };
  find_factors(row, part_of, shared);
  const int numbers = row.heads * D;
  for (int i = rank * kThreads + threadIdx.x; i < numbers; i += launch.sizes.cluster * kThreads) {
    float sum = 0;
    if (row.splits == 1) {
      sum = __uint_as_float(read_remote(merged.acc + i, 0)) / __uint_as_float(read_remote(merged.totals + i / D, 0));
    } else {
#pragma unroll 8
      for (int split = 0; split < row.splits; split++) {
        sum += __uint_as_float(read_remote(merged.acc + i, split)) * shared.factors[split * kRowHeads + i / D];
      }
    }
    out_row(launch.attend, row, i / D)[i % D] = sum;
  }
}

/* Writes what was chosen, and counts what is done; by the first block of a row. */
__device__ __forceinline__ void report(const SparseLaunch &launch, const RowPages &row, int32_t pages, int32_t scored, const int32_t *chosen) {
  const PageSelectParams &p = launch.choose.select;
  int32_t *out = p.selected + row.row * p.k;
  for (int32_t i = threadIdx.x; i < row.count; i += kThreads) out[i] = chosen[i];
  count_selection(p, pages, row.row == 0);
  if (threadIdx.x != 0) return;
  p.counts[row.row] = row.count;
  ps_counters &counters = *p.cache.counters;
  add_to_counter(counters.pages_attended, row.count);
  add_to_counter(counters.pages_in_context, pages);
  add_to_counter(counters.pages_scored, scored);
}

template <typename T, typename Kv, int D>
__global__ void __launch_bounds__(kThreads) sparse_kernel(const __grid_constant__ SparseLaunch launch) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ union {
    SelectShared select;
    JoinShared join;
  } shared;
  let_next_start();
  wait_for_previous();

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
  if (row.length == 0) return; /* all blocks of the cluster */
  row.table = p.sequences.page_table + row.sequence * p.sequences.table_stride;
  const int32_t pages = (row.length + desc.page_size - 1) >> row.page_shift, rank = cluster_rank();

  /* its pages */
  int32_t *chosen = reinterpret_cast<int32_t *>(memory + DecodeTile<Kv, D>::kSharedBytes), scored = 0;
  row.count = min(pages, static_cast<int32_t>(p.k));
  if (pages > p.k) { /* in the memory that the ring takes later */
    scored = choose_pages<T, D>(launch, row, pages, lay_out(launch.sizes, memory), chosen, shared.select);
    cluster_wait();
  } else {
    for (int32_t i = threadIdx.x; i < pages; i += kThreads) chosen[i] = i;
    __syncthreads();
  }
  if (rank == 0) report(launch, row, pages, scored, chosen);

  /* its answer */
  row.selected = chosen;
  row.splits = static_cast<int32_t>(splits_of(static_cast<int64_t>(row.count) << row.page_shift, launch.attend.rows));
  row.split = rank;
  row.begin = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * rank / row.splits), row.count);
  row.end = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * (rank + 1) / row.splits), row.count);
  HeadState<D> state;
  if (threadIdx.x < kDecodeThreads && row.begin < row.end) attend_pages<Kv, D>(launch.attend, row, memory, state);
  __syncthreads();
  const Merged merged = merge_warps<Kv, D>(state, reinterpret_cast<float *>(memory));
  cluster_arrive();
  cluster_wait();
  join_cluster<D>(launch, row, merged, shared.join);
  cluster_arrive(); /* nobody's memory goes away while others read it */
  cluster_wait();
}

/* Sizes of a cluster, the best first. Larger ones than 8 ran in two waves on an H100: 33 us instead of 17 for 8 rows. */
constexpr int32_t kClusterSizes[] = {8, 4};

constexpr int64_t kStaticBytes = int64_t(sizeof(SelectShared) > sizeof(JoinShared) ? sizeof(SelectShared) : sizeof(JoinShared)) + 1024;

ChoiceSizes choice_sizes(const PageChooseParams &params, int32_t cluster) {
  const int64_t pages = params.score.sequences.max_pages, share = ceil_div(pages, cluster), all = ceil_div(pages, kGroupPages);
  const bool has_groups = params.score.cache.group_mean && share > kLongShare;
  const int64_t groups = has_groups ? std::min(groups_wanted(params.select, all), all) : 0, k = params.select.k;
  const int64_t keys = has_groups ? std::max({kLongShare, ceil_div(all, cluster), ceil_div(groups, cluster) * kGroupPages}) : share;
  return {cluster, static_cast<int32_t>(keys), static_cast<int32_t>(std::max<int64_t>({k, groups, kFewCandidates})), static_cast<int32_t>(groups)};
}

/* Tries to launch with so many blocks per row; false when they would not all run at once. */
template <typename T, typename Kv, int D>
bool launch_cluster(Backend &backend, SparseLaunch params, int32_t size) {
  const char *what = "Could not launch sparse_attention";
  auto *kernel = sparse_kernel<T, Kv, D>;
  const int64_t k = params.choose.select.k, shared_bytes = DecodeTile<Kv, D>::kSharedBytes + k * int64_t(sizeof(int32_t));
  params.sizes = choice_sizes(params.choose, size);
  if (choice_bytes(params.sizes) > DecodeTile<Kv, D>::kSharedBytes || shared_bytes > backend.shared_bytes - kStaticBytes) return false;
  allow_shared(what, kernel, shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.attend.rows * size));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = backend.stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(size);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = 2;
  int at_once = 0;
  if (cudaOccupancyMaxActiveClusters(&at_once, kernel, &config) != cudaSuccess || at_once < params.attend.rows) {
    cudaGetLastError();
    return false;
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, params), what);
  return true;
}

template <typename T, typename Kv>
bool launch_head_dim(Backend &backend, const SparseLaunch &params, int32_t size) {
  switch (params.attend.params.cache.desc.head_dim) {
    case 64: return launch_cluster<T, Kv, 64>(backend, params, size);
    case 96:
      if constexpr (kIsScaled<Kv>) return false;
      else return launch_cluster<T, Kv, 96>(backend, params, size);
    case 128: return launch_cluster<T, Kv, 128>(backend, params, size);
    default: return false;
  }
}

/* Launches clusters where they serve. They do not on other devices, for other scorers and shapes, for more rows than run at once, and for
 * a budget whose splits (decode_attention.cuh) would be more than a cluster's blocks. */
bool launch_clusters(Backend &backend, const SparseAttentionParams &params) {
  const PageScoreParams &score = params.choose.score;
  const ps_cache_desc &desc = score.cache.desc;
  if (backend.capability < 90 || !has_fast_score(desc) || desc.num_query_heads / desc.num_kv_heads > kRowHeads) return false;
  if (score.cache.mean_scale || (score.scorer != PS_UNIQUE && score.scorer != PS_MEAN)) return false;
  const SparseLaunch launch_params{params.choose, describe_decode(backend, params.attend), {}};
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

}  // namespace

void sparse_attention(Backend &backend, const SparseAttentionParams &params) {
  if (launch_clusters(backend, params)) return;
  page_choose(backend, params.choose);
  decode_attention(backend, params.attend);
}

}  // namespace ps
