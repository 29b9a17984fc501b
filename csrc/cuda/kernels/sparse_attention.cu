/* Score, selection and attention of a decode step in one call.
 *
 * Few rows (sequence and KV head) are bound by latency, not by bytes: three launches, each waiting for memory a few times over, cost
 * more than what they read. So one cluster of blocks takes a row from its scores to its answer in one launch: every block scores a
 * share of the pages, keeps its best, reads the others' best from their shared memory, makes the same choice as they do, and attends
 * to a share of it. Every page is scored. Many rows are bound by bytes: page_choose.cu, then decode_attention.cu. */
#include "cluster.cuh"
#include "decode_attention_mma.cuh"
#include "page_score.cuh"
#include "page_score.h"
#include "select.cuh"

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTiles = 8; /* that a warp reads at once */
constexpr int kKeyItems = 8, kGatheredItems = 4; /* keys a thread holds */
constexpr int64_t kFewPages = 128;               /* a share that is so small is handed on whole */

struct SparseLaunch {
  PageChooseParams choose;
  DecodeLaunch attend;
  int32_t cluster;    /* blocks a row */
  int32_t most_share; /* pages that a block scores at most */
};

/* Where things lie in a block's shared memory. What choosing needs lies in the ring that attending uses later. */
struct Room {
  uint32_t *keys;                      /* [most_share] of this block's pages */
  uint32_t *best_keys;                 /* [candidates] of this block */
  int32_t *best_pages;                 /* [candidates] */
  uint32_t *all_keys;                  /* [cluster, candidates] everybody's, 0 where there is none */
  int32_t *all_pages;                  /* [cluster, candidates] */
  int32_t *chosen;                     /* [k], behind the ring */
};

/* Candidates of a block. */
PS_HOST_DEVICE int64_t candidates(int64_t k) { return k > kFewPages ? k : kFewPages; }

PS_HOST_DEVICE int64_t choose_bytes(int64_t share, int64_t k, int64_t cluster) { return 4 * (share + 2 * candidates(k) * (1 + cluster)); }

__device__ __forceinline__ Room lay_out(const SparseLaunch &launch, unsigned char *memory, int64_t ring_bytes) {
  const int64_t room = candidates(launch.choose.select.k);
  uint32_t *keys = reinterpret_cast<uint32_t *>(memory), *best_keys = keys + launch.most_share, *all_keys = best_keys + 2 * room;
  return {keys, best_keys, reinterpret_cast<int32_t *>(best_keys + room), all_keys, reinterpret_cast<int32_t *>(all_keys + room * launch.cluster),
          reinterpret_cast<int32_t *>(memory + ring_bytes)};
}

/* keys[i]: of page begin + i, 0 for pages outside [first, last). */
template <typename T, int D>
__device__ __forceinline__ void score_share(const SparseLaunch &launch, const RowPages &row, int32_t begin, int32_t end, int32_t first, int32_t last,
                                            uint32_t *keys) {
  const PageScoreParams &p = launch.choose.score;
  const ps_cache_desc &desc = p.cache.desc;
  const int group = desc.num_query_heads / desc.num_kv_heads, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  const int64_t first_row = (p.layer * int64_t(desc.num_kv_heads) + row.head) * desc.num_pages;
  const T *means = static_cast<const T *>(p.cache.mean) + first_row * D;
  constexpr int kStep = kTiles * kTilePages;
  const int mine = begin + warp * kStep;
  if (mine >= end) return;
  int32_t next[kTiles]; /* looked up one round before they are read */
#pragma unroll
  for (int i = 0; i < kTiles; i++) next[i] = physical_page(launch.attend, row, min(mine + i * kTilePages + g, end - 1));
  PlainQueries<T, D, 1> q;
  load_queries(p.q.row(row.sequence) + row.head * group * D, group, q);
  for (int start = mine; start < end; start += kWarps * kStep) {
    PageRow<T, D> pages[kTiles];
    float std[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
      load_page_row<T, D>(means, next[i], pages[i]);
      std[i] = p.cache.std[first_row + next[i]];
      next[i] = physical_page(launch.attend, row, min(start + kWarps * kStep + i * kTilePages + g, end - 1));
    }
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
      float best[2];
      score_tile<T, D, 1>(q, group, p.scorer == PS_MEAN ? 0.f : p.lambda, pages[i], std[i], 1.f, best);
      const int32_t page = start + i * kTilePages + 2 * t + g;
      if (g < 2 && page < end) keys[page - begin] = page >= first && page < last ? ordered_key(g == 0 ? best[0] : best[1]) : 0u;
    }
  }
}

/* Leaves candidates in room.best_*, ascending: all of the block's pages that take part where `handed` places hold them, else the
 * `wanted` = `handed` best. Places beyond get the key 0. */
__device__ __forceinline__ void keep_best(const Room &room, int32_t begin, int32_t end, int32_t first, int32_t last, int32_t handed, SelectShared &shared) {
  const int32_t low = max(begin, first), part = max(min(end, last) - low, 0);
  if (part <= handed) {
    for (int32_t i = threadIdx.x; i < handed; i += kThreads) {
      room.best_keys[i] = i < part ? room.keys[low + i - begin] : 0;
      room.best_pages[i] = low + i;
    }
    return;
  }
  auto key = [&](int32_t i) { return room.keys[i]; };
  Keys<kKeyItems, decltype(key)> keys(key, end - begin);
  const Cut cut = find_cut(keys, handed, shared);
  write_taken(keys, cut, [&](int32_t i) { return begin + i; }, room.best_pages, shared);
  for (int32_t i = threadIdx.x; i < handed; i += kThreads) room.best_keys[i] = room.keys[room.best_pages[i] - begin];
}

/* Fills room.chosen with k pages, the same in every block of the cluster. The cluster has arrived, and not waited, once more than
 * before: others may still read room.best_*. */
template <typename T, int D>
__device__ __forceinline__ void choose_pages(const SparseLaunch &launch, const RowPages &row, int32_t pages, const Room &room, SelectShared &shared) {
  const PageSelectParams &p = launch.choose.select;
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  const int32_t rank = cluster_rank(), share = (pages + launch.cluster - 1) / launch.cluster, begin = min(rank * share, pages), end = min(begin + share, pages);
  const int32_t first = forced.first, last = pages - forced.last, wanted = forced.best;
  write_forced(forced, pages, static_cast<int32_t>(p.k), room.chosen);
  if (wanted == 0) {
    cluster_arrive();
    __syncthreads();
    return;
  }
  score_share<T, D>(launch, row, begin, end, first, last, room.keys);
  __syncthreads();
  const int32_t handed = share <= kFewPages ? share : wanted; /* by each block, the same number from all */
  keep_best(room, begin, end, first, last, handed, shared);
  cluster_arrive();
  cluster_wait();
#pragma unroll 4
  for (int32_t i = threadIdx.x; i < launch.cluster * handed; i += kThreads) {
    room.all_keys[i] = read_remote(room.best_keys + i % handed, i / handed);
    room.all_pages[i] = static_cast<int32_t>(read_remote(room.best_pages + i % handed, i / handed));
  }
  cluster_arrive();
  __syncthreads();
  auto key = [&](int32_t i) { return room.all_keys[i]; };
  Keys<kGatheredItems, decltype(key)> keys(key, launch.cluster * handed);
  const Cut cut = find_cut(keys, wanted, shared);
  write_taken(keys, cut, [&](int32_t i) { return room.all_pages[i]; }, room.chosen + forced.first, shared);
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
  for (int i = rank * kThreads + threadIdx.x; i < numbers; i += launch.cluster * kThreads) {
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
__device__ __forceinline__ void report(const SparseLaunch &launch, const RowPages &row, int32_t pages, const int32_t *chosen) {
  const PageSelectParams &p = launch.choose.select;
  int32_t *out = p.selected + row.row * p.k;
  for (int32_t i = threadIdx.x; i < row.count; i += kThreads) out[i] = chosen[i];
  count_selection(p, pages, row.row == 0);
  if (threadIdx.x != 0) return;
  p.counts[row.row] = row.count;
  auto add = [](int64_t &counter, int32_t by) { atomicAdd(reinterpret_cast<unsigned long long *>(&counter), static_cast<unsigned long long>(by)); };
  ps_counters &counters = *p.cache.counters;
  add(counters.pages_attended, row.count);
  add(counters.pages_in_context, pages);
  if (pages > p.k) add(counters.pages_scored, pages);
}

template <typename T, int D>
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
  row.row = blockIdx.x / launch.cluster;
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
  const Room room = lay_out(launch, memory, DecodeTile<D>::kSharedBytes);
  row.count = min(pages, static_cast<int32_t>(p.k));
  if (pages > p.k) {
    choose_pages<T, D>(launch, row, pages, room, shared.select);
    cluster_wait();
  } else {
    for (int32_t i = threadIdx.x; i < pages; i += kThreads) room.chosen[i] = i;
    __syncthreads();
  }
  if (rank == 0) report(launch, row, pages, room.chosen);

  /* its answer */
  row.selected = room.chosen;
  row.splits = static_cast<int32_t>(splits_of(static_cast<int64_t>(row.count) << row.page_shift, launch.attend.rows));
  row.split = rank;
  row.begin = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * rank / row.splits), row.count);
  row.end = min(static_cast<int32_t>(static_cast<int64_t>(row.count) * (rank + 1) / row.splits), row.count);
  HeadState<D> state;
  if (threadIdx.x < kDecodeThreads && row.begin < row.end) attend_pages<T, D>(launch.attend, row, memory, state);
  __syncthreads();
  const Merged merged = merge_warps(state, reinterpret_cast<float *>(memory));
  cluster_arrive();
  cluster_wait();
  join_cluster<D>(launch, row, merged, shared.join);
  cluster_arrive(); /* nobody's memory goes away while others read it */
  cluster_wait();
}

/* Sizes of a cluster, the best first. 16 and 12 need a device whose groups of multiprocessors are large enough for all rows at once. */
constexpr int32_t kClusterSizes[] = {16, 12, 8, 4};

/* Tries to launch with so many blocks a row; false when they would not all run at once. */
template <typename T, int D>
bool launch_cluster(Backend &backend, SparseLaunch params, int32_t size) {
  const char *what = "Could not launch sparse_attention";
  auto *kernel = sparse_kernel<T, D>;
  const int64_t k = params.choose.select.k, shared_bytes = DecodeTile<D>::kSharedBytes + k * int64_t(sizeof(int32_t));
  params.cluster = size;
  params.most_share = static_cast<int32_t>(ceil_div(params.choose.score.sequences.max_pages, size));
  if (choose_bytes(params.most_share, k, size) > DecodeTile<D>::kSharedBytes || shared_bytes > backend.shared_bytes - int64_t(sizeof(SelectShared)) - 1024) return false;
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)), what);
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeNonPortableClusterSizeAllowed, 1), what);
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

template <typename T>
bool launch_head_dim(Backend &backend, const SparseLaunch &params, int32_t size) {
  switch (params.attend.params.cache.desc.head_dim) {
    case 64: return launch_cluster<T, 64>(backend, params, size);
    case 96: return launch_cluster<T, 96>(backend, params, size);
    case 128: return launch_cluster<T, 128>(backend, params, size);
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
  const SparseLaunch launch_params{params.choose, describe_decode(backend, params.attend), 0, 0};
  const int64_t rows = launch_params.attend.rows, splits = splits_of(params.choose.select.k * desc.page_size, rows);
  for (int32_t size : kClusterSizes) {
    if (splits > size || rows * size > backend.multiprocessors) continue;
    if (getenv("PS_CLUSTER") && atoi(getenv("PS_CLUSTER")) != size) continue;
    if (desc.dtype == PS_F16 ? launch_head_dim<f16>(backend, launch_params, size) : launch_head_dim<bf16>(backend, launch_params, size)) return true;
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
