/* Score, selection and attention of a decode step in one call.
 *
 * Few rows (sequence and KV head) are bound by latency, not by bytes: three launches, each waiting for memory a few times over, cost
 * more than what they read. So one cluster of blocks takes a row from its scores to its answer in one launch: every block scores a
 * share of the pages, all make the same choice, and each attends to a share of it. Every page is scored, but for
 * very long contexts. Many rows are bound by bytes: page_choose.cu, then decode_attention.cu.
 *
 * The same launch may append the token of a step first: each block norms and rotates the queries of its row for itself, and a further block per
 * KV head appends. Only blocks that need the newest page wait for that. */
#include <algorithm>

#include "append_rotated.cuh"
#include "cluster_choice.cuh"
#include "cluster_join.cuh"
#include "decode_attention_mma.cuh"
#include "page_score.h"

namespace ps {
namespace {

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

/* Registers per thread of a block that fits beside one of a product of 16-bit weights (matvec_stream.cuh). Threads that do not attend then leave
 * theirs to those that do, for whom 152 are too few. */
constexpr int kRegisters = 152, kIdleRegisters = 64, kAttendRegisters = 2 * kRegisters - kIdleRegisters;

/* Gives registers back, or waits until others have given some; by all threads of a group of 128. */
template <int Registers>
__device__ __forceinline__ void keep_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers) : "memory");
#endif
}
template <int Registers>
__device__ __forceinline__ void take_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers) : "memory");
#endif
}
static_assert(kThreads == 2 * kDecodeThreads && kDecodeThreads == 128, "One group attends, the other reports");

/* Chosen pages and queries in shared memory. The pages are requested first: nothing else keeps a warp waiting as long. */
struct Taken {
  static constexpr bool kReadsEarly = true, kKnowsPages = true;
  const float *in_memory; /* [heads, stride] */
  int stride;

  /* By all threads of the group that attends. */
  __device__ __forceinline__ const float *queries() const {
    take_registers<kAttendRegisters>();
    return in_memory;
  }
  __device__ __forceinline__ void complete(int, uint32_t) const {}
};

struct NoAppend {};

/* Appends the newest token to a KV head and says so: the blocks of a launch beyond those of the rows. More than heads have nothing to do. */
template <typename T, bool Grouped>
__device__ __forceinline__ void append_newest(const SparseLaunch &launch, const AppendRotatedParams &append, int32_t head, float *row) {
  __shared__ float shared[kWarp];
  if (head >= append.append.cache.desc.num_kv_heads) {
    wait_for_previous();
    return;
  }
  append_token<T, T, Grouped, 1>(append, 0, head, launch.attend.bad_index, row, shared);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) atomicExch(launch.appended + head, 1);
}

template <typename T, typename Kv, int D, typename Append, bool Grouped>
__global__ void __maxnreg__(kRegisters) sparse_kernel(const __grid_constant__ SparseLaunch launch, const __grid_constant__ Append append) {
  constexpr bool kAppends = !std::is_same<Append, NoAppend>::value;
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ alignas(16) float heads[kRowHeads * QueryShared<D>::kStride];
  let_next_start(); /* the next product then requests its first weights while the projections end, and not while pages are waited for */
  if constexpr (kAppends) {
    const int32_t beyond = static_cast<int32_t>(blockIdx.x) - launch.attend.rows * launch.sizes.cluster;
    if (beyond >= 0) return append_newest<T, Grouped>(launch, append, beyond, heads);
  }

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
  const int32_t rank = cluster_rank();
  auto wait_for_append = [&] {
    if constexpr (kAppends) wait_until_ready(launch.appended + row.row);
  };
  if (row.length == 0) { /* in all blocks of the cluster */
    wait_for_previous();
    if (rank == 0) wait_for_append();
    return;
  }
  row.table = p.sequences.page_table + row.sequence * p.sequences.table_stride;
  const int32_t pages = (row.length + desc.page_size - 1) >> row.page_shift;

  /* its queries */
  const QueryShared<D> queries{heads};
  auto take_queries = [&] {
    wait_for_previous();
    if constexpr (kAppends) {
      for (int head = threadIdx.x / kWarp; head < row.heads; head += kThreads / kWarp) {
        rotate_head<1>(append, append.q.row(0) + (row.first_query_head + head) * D, append.q_norm, append.q_table.row(0),
                       heads + head * QueryShared<D>::kStride);
      }
    } else {
      const float *from = queries_of(launch.attend, row);
      for (int i = threadIdx.x; i < row.heads * D; i += kThreads) heads[i / D * QueryShared<D>::kStride + i % D] = __ldcg(from + i);
    }
    __syncthreads();
  };

  /* its pages */
  int32_t *lists = reinterpret_cast<int32_t *>(memory + launch.room_bytes + launch.inbox_bytes), scored = 0;
  const Chosen chosen{lists, lists + p.k};
  row.count = min(pages, static_cast<int32_t>(p.k));
  row.split = rank;
  __shared__ RowPages kept; /* found while nothing waits for it, and kept where the choice has registers for other things */
  if (threadIdx.x == 0) {
    kept = row;
    kept.splits = static_cast<int32_t>(splits_of(static_cast<int64_t>(row.count) << row.page_shift, launch.attend.rows));
    kept.begin = min(row.count * rank / kept.splits, row.count);
    kept.end = min(row.count * (rank + 1) / kept.splits, row.count);
  }
  if (pages > p.k) { /* in the memory that the ring takes later */
    scored = choose_pages<T, D, kAppends>(launch, row, pages, lay_out(launch.sizes, memory), chosen, *reinterpret_cast<ChoiceShared *>(memory),
                                          queries, take_queries, wait_for_append);
  } else {
    for (int32_t i = threadIdx.x; i < pages; i += kThreads) chosen.logical[i] = i, chosen.physical[i] = physical_page(launch.attend, row, i);
    cluster_sync(); /* as in choose_pages */
    take_queries();
  }

  /* its answer */
  row = kept;
  row.selected = chosen.logical;
  row.physical = chosen.physical;
  if (kAppends && rank == row.splits - 1) { /* the newest page comes last, where it is taken */
    const PageSelectParams &select = launch.choose.select;
    if (pages <= p.k || !scores_newest(forced_pages(select.k, select.sink_pages, select.recent_pages))) wait_for_append();
  }
  if (threadIdx.x >= kDecodeThreads) {
    keep_registers<kIdleRegisters>();
    if (rank == 0) report(launch, row, pages, scored, chosen.logical);
    __syncwarp();
    return cluster_sync();
  }
  HeadState<D> state;
  if (row.begin < row.end) attend_pages<Kv, D, kDecodeWarps>(launch.attend, row, Taken{heads, QueryShared<D>::kStride}, memory, state);
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
template <typename T, typename Kv, int D, typename Append, bool Grouped>
bool launch_size(Backend &backend, SparseLaunch params, const Append &append, int32_t size) {
  const ps_cache_desc &desc = params.choose.score.cache.desc;
  const int64_t lists = 2 * params.choose.select.k * int64_t(sizeof(int32_t));
  params.sizes = choice_sizes(params.choose, size);
  params.room_bytes = static_cast<int32_t>(std::max<int64_t>(DecodeTile<Kv, D>::kSharedBytes, choice_bytes(params.sizes, D)));
  params.inbox_bytes = static_cast<int32_t>(Inbox::bytes(desc.num_query_heads / desc.num_kv_heads, D, size));
  const int64_t shared_bytes = params.room_bytes + params.inbox_bytes + lists;
  if (shared_bytes > backend.shared_bytes - kStaticBytes) return false;
  const auto kernel = sparse_kernel<T, Kv, D, Append, Grouped>;
  leave_no_cache("Could not launch sparse_attention", kernel);
  const int64_t appending = std::is_same<Append, NoAppend>::value ? 0 : ceil_div(desc.num_kv_heads, size);
  return launch_clusters(backend, "Could not launch sparse_attention", kernel, params.attend.rows + appending, size, dim3(kThreads), shared_bytes,
                         params, append);
}

template <typename T, typename Kv>
bool launch_head_dim(Backend &backend, const SparseLaunch &params, int32_t size) {
  switch (params.attend.params.cache.desc.head_dim) {
    case 64: return launch_size<T, Kv, 64, NoAppend, false>(backend, params, {}, size);
    case 96:
      if constexpr (kIsScaled<Kv>) return false;
      else return launch_size<T, Kv, 96, NoAppend, false>(backend, params, {}, size);
    case 128: return launch_size<T, Kv, 128, NoAppend, false>(backend, params, {}, size);
    default: return false;
  }
}

template <typename T>
bool launch_joined(Backend &backend, const SparseLaunch &params, const AppendRotatedParams &append, int32_t size) {
  const CacheView &cache = append.append.cache;
  if (cache.desc.head_dim == 64) {
    return cache.group_mean ? launch_size<T, T, 64, AppendRotatedParams, true>(backend, params, append, size)
                            : launch_size<T, T, 64, AppendRotatedParams, false>(backend, params, append, size);
  }
  return cache.group_mean ? launch_size<T, T, 128, AppendRotatedParams, true>(backend, params, append, size)
                          : launch_size<T, T, 128, AppendRotatedParams, false>(backend, params, append, size);
}

/* Launches clusters where they serve, with an append first unless `append` is nullptr. They do not serve on other devices, for other scorers
 * and shapes, for more rows than run at once, and for a budget whose splits (decode_attention.cuh) would be more than a cluster's blocks. */
bool launch_as_clusters(Backend &backend, const SparseAttentionParams &params, const AppendRotatedParams *append) {
  const PageScoreParams &score = params.choose.score;
  const ps_cache_desc &desc = score.cache.desc;
  if (backend.capability < 90 || !has_fast_score(desc) || desc.num_query_heads / desc.num_kv_heads > kRowHeads) return false;
  if (score.cache.mean_scale || (score.scorer != PS_UNIQUE && score.scorer != PS_MEAN)) return false;
  SparseLaunch launch_params{params.choose, describe_decode(backend, params.attend), {}, 0, 0, nullptr};
  if (append != nullptr) launch_params.appended = describe_flags(launch_params.attend).ready;
  const int64_t rows = launch_params.attend.rows, splits = splits_of(params.choose.select.k * desc.page_size, rows);
  for (int32_t size : kClusterSizes) {
    if (splits > size || rows * size > backend.multiprocessors) continue;
    bool launched = false;
    with_cache_types(desc, [&](auto type, auto kv) {
      using T = decltype(type);
      if constexpr (!std::is_same<T, float>::value) {
        launched = append != nullptr ? launch_joined<T>(backend, launch_params, *append, size)
                                     : launch_head_dim<T, decltype(kv)>(backend, launch_params, size);
      }
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
  if (launch_as_clusters(backend, params, nullptr) || launch_side_by_side(backend, params)) return;
  page_choose(backend, params.choose);
  decode_attention(backend, params.attend);
}

void append_sparse_attention(Backend &backend, const AppendRotatedParams &append, const SparseAttentionParams &attend) {
  const bool may_join = !append.append.cache.coarse && joins_attention(append, attend.choose.score.sequences);
  const bool joins = may_join && note_written(backend, append.append.cache, append.append.layer);
  if (joins && launch_as_clusters(backend, attend, &append)) return;
  append_rotated(backend, append);
  sparse_attention(backend, attend);
}

}  // namespace ps
