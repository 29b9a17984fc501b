/* The pages before each tile of a prompt that its tokens attend to.
 *
 * Rows are the query heads of a KV head's group of the sampled tokens of a tile. They are multiplied twice with the statistics of all pages
 * that compete: first to sum e^score for each row, then to add each page's shares over the rows. Multiplying twice costs less than
 * storing the scores of all rows. Then the best pages are taken, with the code of page_select. Bound by arithmetic: 4 d operations per row
 * and page (8 d for diag and quest), 16 / 128 of the rows, and 1 / S of the keys of dense attention.
 *
 * A cluster of blocks does all of it for a tile and KV head in one launch. Where there are no clusters, and for f32 and other shapes, each of
 * the three steps is a launch. */
#include "prefill_choose.cuh"

#include <algorithm>

namespace ps {
namespace {

/* Multiplies the rows with pages [begin, end). kSums: writes this block's shares; otherwise scores. kTwo: two rows of statistics per page,
 * diag and quest. */
template <typename T, int D, bool kTwo, bool kSums>
__device__ __forceinline__ void score_pages(const ChooseLaunch &launch, const PromptRow &row, const ChooseShared<T, D> &shared, int32_t begin,
                                            int32_t end, Share *shares) {
  const PrefillChooseParams &p = launch.p;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  const HeadStatistics<T> statistics(p, row.head);
  const float scale = p.scale * kLog2E;
  /* The outer loop is one round where scores are written, because a page's score is a sum over all rows. */
  for (int32_t block = 0; block < (kSums ? launch.rows : kRowBlock); block += kRowBlock) {
    Share own[kSums ? kRowBlock / 4 : 1];
    if constexpr (kSums) {
#pragma unroll
      for (int i = 0; i < kRowBlock / 4; i++) own[i] = {-INFINITY, 0};
    }
    for (int32_t page = begin + warp * kTilePages; page < end; page += kRoundPages) {
      int32_t physical[2];
      float std[2];
      PageTile<T, D> tile, second;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        physical[i] = checked_page(launch.bad_index, p.page_table, 0, min(page + g + 8 * i, end - 1), p.cache.desc.num_pages);
        std[i] = statistics.std[physical[i]];
      }
      tile.load(statistics.first, physical);
      if constexpr (kTwo) second.load(statistics.second, physical);
      float shares_of[2] = {0, 0}; /* of pages g and g + 8 */
      for (int32_t rows = block; rows < (kSums ? block + kRowBlock : launch.rows); rows += kRowBlock) {
        float scores[kRowBlock / 8][4], others[kTwo ? kRowBlock / 8 : 1][4];
        tile.multiply(shared.first + rows * ChooseShared<T, D>::kPitch, scores);
        if constexpr (kTwo) second.multiply(shared.second + rows * ChooseShared<T, D>::kPitch, others);
#pragma unroll
        for (int n = 0; n < kRowBlock / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int r = rows + 8 * n + 2 * t + i % 2;
            const float factor = shared.factor[r];
            float score = scores[n][i] * factor + shared.spread[r] * std[i / 2];
            if constexpr (kTwo) score += p.scorer == PS_QUEST ? others[n][i] * factor : p.lambda * sqrtf(others[n][i]) * factor;
            score *= scale;
            if constexpr (kSums) {
              if (page + g + 8 * (i / 2) < end) add_score(own[2 * n + i % 2], score);
            } else {
              shares_of[i / 2] += exp2_fast(score - shared.total[r]);
            }
          }
        }
      }
      if constexpr (!kSums) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          shares_of[i] += __shfl_xor_sync(kAllLanes, shares_of[i], 1);
          shares_of[i] += __shfl_xor_sync(kAllLanes, shares_of[i], 2);
          const int32_t at = page + g + 8 * i;
          if (t == 0 && at < end) launch.scores[row.index * launch.pages + at] = shares_of[i];
        }
      }
    }
    if constexpr (kSums) {
      __shared__ Share of_warps[kWarps][kRowBlock];
#pragma unroll
      for (int i = 0; i < kRowBlock / 4; i++) {
#pragma unroll
        for (int distance = 4; distance < kWarp; distance *= 2) {
          add_share(own[i], {__shfl_xor_sync(kAllLanes, own[i].largest, distance), __shfl_xor_sync(kAllLanes, own[i].sum, distance)});
        }
        if (g == 0) of_warps[warp][i / 2 * 8 + 2 * t + i % 2] = own[i];
      }
      __syncthreads();
      for (int r = threadIdx.x; r < kRowBlock; r += kThreads) {
        Share all{-INFINITY, 0};
        for (int w = 0; w < kWarps; w++) add_share(all, of_warps[w][r]);
        shares[block + r] = all;
      }
      __syncthreads();
    }
  }
}

/* Each row's sum over all pages, to shared memory. */
template <typename T, int D>
__device__ __forceinline__ void load_totals(const ChooseLaunch &launch, const PromptRow &row, ChooseShared<T, D> &shared) {
  for (int r = threadIdx.x; r < launch.rows; r += kThreads) shared.total[r] = row_total(launch, row, r);
}

/* One of the two multiplications. Grid: chunks x (tiles x KV heads). */
template <typename T, int D, bool kTwo, bool kSums>
__global__ void __launch_bounds__(kThreads) prompt_score_kernel(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  let_next_start();
  wait_for_previous();
  const PromptRow row = prompt_row(launch.p, blockIdx.y);
  const int32_t begin = row.first + static_cast<int32_t>(blockIdx.x) * launch.chunk_pages, end = min(begin + launch.chunk_pages, row.end);
  ChooseShared<T, D> shared(dynamic_shared, launch.rows, kTwo);
  Share *shares = launch.shares + (row.index * launch.chunks + blockIdx.x) * launch.rows;
  if (begin >= end) {
    if (kSums && row.end > row.first) {
      for (int r = threadIdx.x; r < launch.rows; r += kThreads) shares[r] = {-INFINITY, 0};
    }
    return;
  }
  load_rows<T, D, kTwo>(launch, row, shared);
  if constexpr (!kSums) {
    load_totals(launch, row, shared);
    if (threadIdx.x == 0) add_to_counter(launch.p.cache.counters->prompt_pages_scored, end - begin);
  }
  __syncthreads();
  score_pages<T, D, kTwo, kSums>(launch, row, shared, begin, end, shares);
}

/* All of it. Grid: clusters of `chunks` blocks, one for each tile and KV head. */
template <typename T, int D, bool kTwo>
__global__ void __launch_bounds__(kThreads, kTwo ? 1 : 2) prompt_choose_kernel(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  __shared__ SelectShared select;
  __shared__ ClusterShared cluster;
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.x / launch.chunks);
  const int32_t rank = static_cast<int32_t>(cluster_rank()), k = static_cast<int32_t>(p.k);
  int32_t *out = p.selected + row.index * k;
  if (row.before <= k) { /* in all blocks of the cluster */
    if (rank == 0) take_all(row.before, out, p.counts + row.index);
    return;
  }
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  if (rank == 0) write_forced(forced, row.before, k, out);
  if (rank == 0 && threadIdx.x == 0) p.counts[row.index] = k;
  if (forced.best == 0) return;

  const int32_t rounds = (row.end - row.first + kRoundPages - 1) / kRoundPages, share = (rounds + launch.chunks - 1) / launch.chunks * kRoundPages;
  const int32_t begin = min(row.first + rank * share, row.end), end = min(begin + share, row.end);
  ChooseShared<T, D> shared(dynamic_shared, launch.rows, kTwo);
  load_rows<T, D, kTwo>(launch, row, shared);
  if (threadIdx.x == 0) add_to_counter(p.cache.counters->prompt_pages_scored, end - begin);
  __syncthreads();
  score_pages<T, D, kTwo, true>(launch, row, shared, begin, end, launch.shares + (row.index * launch.chunks + rank) * launch.rows);
  cluster_sync(); /* all shares are there */
  load_totals(launch, row, shared);
  __syncthreads();
  score_pages<T, D, kTwo, false>(launch, row, shared, begin, end, nullptr);
  __syncthreads(); /* this block's scores are there */
  const float *scores = launch.scores + row.index * launch.pages + begin;
  auto key = [&](int32_t i) { return ordered_key(scores[i]); };
  Keys<kMostItems, decltype(key)> keys(key, end - begin);
  select_in_cluster(keys, forced.best, launch.chunks, select, cluster, [&](int32_t place, int32_t i) { out[forced.first + place] = begin + i; });
  cluster_sync(); /* nobody's memory goes away while others read it */
}

/* The same for any dtype, head and group size: a warp per page, plain arithmetic. Dynamic shared memory: shares [kWarps, rows]. */
template <typename T, bool kSums>
__global__ void __launch_bounds__(kThreads) prompt_score_generic(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  Share *own = reinterpret_cast<Share *>(dynamic_shared);
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.y);
  const int32_t begin = row.first + static_cast<int32_t>(blockIdx.x) * launch.chunk_pages, end = min(begin + launch.chunk_pages, row.end);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, head_dim = p.cache.desc.head_dim;
  const Layout layout(p.cache.desc);
  const int64_t base = layout.vector(p.layer, row.head, 0);
  const auto number = [&](const void *pool, int64_t at) { return to_float(static_cast<const T *>(pool)[base + at]); };
  if (row.end == row.first) return;
  if (kSums) {
    for (int r = threadIdx.x; r < kWarps * launch.rows; r += kThreads) own[r] = {-INFINITY, 0};
  } else if (threadIdx.x == 0 && begin < end) {
    add_to_counter(p.cache.counters->prompt_pages_scored, end - begin);
  }
  __syncthreads();
  for (int32_t page = begin + warp; page < end; page += kWarps) {
    const int64_t physical = checked_page(launch.bad_index, p.page_table, 0, page, p.cache.desc.num_pages);
    float share = 0;
    for (int r = 0; r < row.rows; r++) {
      const float *q = row_query(p, row, r);
      float main = 0, squares = 0, other = 0;
      for (int dim = lane; dim < head_dim; dim += kWarp) {
        const float x = q[dim], positive = x > 0 ? x : 0;
        const int64_t at = physical * head_dim + dim;
        squares = fmaf(x, x, squares);
        if (p.scorer == PS_QUEST) main += positive * number(p.cache.max, at) + (x - positive) * number(p.cache.min, at);
        else main = fmaf(x, number(p.cache.mean, at), main);
        if (p.scorer == PS_DIAG) other = fmaf(x * x, number(p.cache.variance, at), other);
      }
      main = warp_sum(main);
      if (p.scorer == PS_UNIQUE) main += p.lambda * sqrtf(warp_sum(squares)) * p.cache.std[layout.page(p.layer, row.head, physical)];
      else if (p.scorer == PS_DIAG) main += p.lambda * sqrtf(warp_sum(other));
      main *= p.scale * kLog2E;
      if (kSums) {
        if (lane == 0) add_score(own[warp * launch.rows + r], main);
      } else {
        share += exp2_fast(main - row_total(launch, row, r));
      }
    }
    if (!kSums && lane == 0) launch.scores[row.index * launch.pages + page] = share;
  }
  if (!kSums) return;
  __syncthreads();
  for (int r = threadIdx.x; r < launch.rows; r += kThreads) {
    Share all{-INFINITY, 0};
    for (int w = 0; w < kWarps; w++) add_share(all, own[w * launch.rows + r]);
    launch.shares[(row.index * launch.chunks + blockIdx.x) * launch.rows + r] = all;
  }
}

/* Grid: tiles x KV heads. */
__global__ void __launch_bounds__(1024) prompt_select_kernel(const __grid_constant__ ChooseLaunch launch) {
  __shared__ SelectShared shared;
  let_next_start();
  wait_for_previous();
  const PrefillChooseParams &p = launch.p;
  const PromptRow row = prompt_row(p, blockIdx.x);
  const int32_t k = static_cast<int32_t>(p.k);
  int32_t *out = p.selected + row.index * k;
  if (row.before <= k) return take_all(row.before, out, p.counts + row.index);
  const Forced forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  write_forced(forced, row.before, k, out);
  if (threadIdx.x == 0) p.counts[row.index] = k;
  if (forced.best == 0) return;
  const float *scores = launch.scores + row.index * launch.pages + row.first;
  auto key = [&](int32_t i) { return ordered_key(scores[i]); };
  Keys<kMostItems, decltype(key)> keys(key, row.end - row.first);
  const Cut cut = find_cut(keys, forced.best, shared);
  write_taken(keys, cut, [&](int32_t i) { return row.first + i; }, out + forced.first, shared);
}

enum class Done { kNothing, kScores, kAll };

/* One launch for all of it, where clusters can run. */
template <typename T, int D, bool kTwo>
bool choose_in_clusters(Backend &backend, ChooseLaunch launch_params, int64_t index_rows, int64_t bytes) {
  if (backend.capability < 90) return false;
  while (launch_params.chunks > kMostBlocks) launch_params.chunks /= 2;
  return launch_clusters_together(backend, "Could not launch prefill_choose", prompt_choose_kernel<T, D, kTwo>, index_rows, 1, launch_params.chunks,
                                  dim3(kThreads), bytes, launch_params);
}

/* Does what it can, if the queries fit the shared memory. */
template <typename T, int D, bool kTwo>
Done score_fast(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  const int64_t bytes = ChooseShared<T, D>::bytes(launch_params.rows, kTwo);
  if (bytes + kStaticSharedBytes > backend.shared_bytes) return Done::kNothing;
  if (choose_in_clusters<T, D, kTwo>(backend, launch_params, grid.y, bytes)) return Done::kAll;
  launch(backend, "Could not launch prefill_choose", prompt_score_kernel<T, D, kTwo, true>, grid, dim3(kThreads), bytes, launch_params);
  launch(backend, "Could not launch prefill_choose", prompt_score_kernel<T, D, kTwo, false>, grid, dim3(kThreads), bytes, launch_params);
  return Done::kScores;
}

template <typename T, int D>
Done score_fast(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  const bool two = launch_params.p.scorer == PS_DIAG || launch_params.p.scorer == PS_QUEST;
  return two ? score_fast<T, D, true>(backend, launch_params, grid) : score_fast<T, D, false>(backend, launch_params, grid);
}

template <typename T>
Done score_with_tensor_cores(Backend &backend, const ChooseLaunch &launch_params, dim3 grid) {
  if constexpr (!std::is_same<T, float>::value) {
    switch (launch_params.p.cache.desc.head_dim) {
      case 64: return score_fast<T, 64>(backend, launch_params, grid);
      case 96: return score_fast<T, 96>(backend, launch_params, grid);
      case 128: return score_fast<T, 128>(backend, launch_params, grid);
      case 256: return score_fast<T, 256>(backend, launch_params, grid);
      default: break;
    }
  }
  return Done::kNothing;
}

}  // namespace

void prefill_choose(Backend &backend, const PrefillChooseParams &params) {
  const ps_cache_desc &desc = params.cache.desc;
  if (params.cache.mean_scale) throw Error(PS_UNSUPPORTED, "Prompts cannot choose pages by 8-bit means; create the cache without them");
  const int64_t index_rows = params.tiles.count() * desc.num_kv_heads, group = desc.num_query_heads / desc.num_kv_heads;
  const int64_t pages = (params.tiles.start + params.tiles.tokens) / desc.page_size + 1;
  const int64_t rows = ceil_div(kSampledTokens * group, int64_t(kRowBlock)) * kRowBlock;
  /* each block takes whole rounds */
  const int64_t wanted = ceil_div(pages * index_rows, kBlocksPerMultiprocessor * backend.multiprocessors),
                most = ceil_div(pages, int64_t(kRoundPages));
  const int64_t rounds = std::max<int64_t>(1, std::min(most, ceil_div(wanted, int64_t(kRoundPages))));
  ChooseLaunch launch_params{params, backend.bad_index, nullptr, nullptr, 0, 0, 0, 0};
  launch_params.chunk_pages = static_cast<int32_t>(rounds * kRoundPages);
  launch_params.chunks = static_cast<int32_t>(ceil_div(pages, int64_t(launch_params.chunk_pages)));
  launch_params.rows = static_cast<int32_t>(rows);
  launch_params.pages = static_cast<int32_t>(pages);
  const int64_t shares_bytes = index_rows * launch_params.chunks * rows * int64_t(sizeof(Share));
  char *memory = static_cast<char *>(scratch(backend, shares_bytes + index_rows * pages * int64_t(sizeof(float))));
  launch_params.shares = reinterpret_cast<Share *>(memory);
  launch_params.scores = reinterpret_cast<float *>(memory + shares_bytes);

  const dim3 grid(static_cast<unsigned>(launch_params.chunks), static_cast<unsigned>(index_rows));
  Done done = Done::kNothing;
  with_dtype(desc.dtype, [&](auto type) {
    using T = decltype(type);
    if (group <= kMostGroup) done = score_with_tensor_cores<T>(backend, launch_params, grid);
    if (done != Done::kNothing) return;
    const int64_t bytes = kWarps * rows * int64_t(sizeof(Share));
    launch(backend, "Could not launch prefill_choose", prompt_score_generic<T, true>, grid, dim3(kThreads), bytes, launch_params);
    launch(backend, "Could not launch prefill_choose", prompt_score_generic<T, false>, grid, dim3(kThreads), bytes, launch_params);
  });
  if (done == Done::kAll) return;
  const dim3 block(pages <= 2048 ? 128 : pages <= 4096 ? 256 : pages <= 8192 ? 512 : 1024);
  launch(backend, "Could not launch prefill_choose", prompt_select_kernel, dim3(static_cast<unsigned>(index_rows)), block, 0, launch_params);
}

}  // namespace ps
