/* The score of every page for one query per sequence: the largest over the query heads of the KV head's group.
 *
 *   unique  q.mean + lambda |q| std                 diag  q.mean + lambda sqrt(sum_d q_d^2 var_d)
 *   quest   sum_d max(q_d min_d, q_d max_d)         mean  q.mean
 *
 * Bound by the statistics it reads: d numbers per page and KV head (twice that for diag and quest). */
#include "score_tile.cuh"

#include "page_score.h"

namespace ps {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
PS_HOST_DEVICE constexpr int tiles_at_once(int head_dim) { return head_dim <= 128 ? 4 : 2; } /* as many as fit the registers */

/* What a launch scores: 1 << unit_shift logical pages are one row of statistics, 1 or the pages of a group. */
struct ScoreLaunch {
  PageScoreParams params;
  BadIndex *bad_index;
  int32_t chunks, chunk_units; /* blocks per row, and what each scores */
  int32_t unit_shift;
};

/* One block's share. */
struct ScoreRow {
  int64_t sequence, head;
  const float *q;
  const int32_t *table;
  float *scores;
  int32_t begin, end, group; /* units */
};

__device__ bool find_units(const ScoreLaunch &launch, ScoreRow &out) {
  const PageScoreParams &p = launch.params;
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = blockIdx.x / launch.chunks;
  out.sequence = row / desc.num_kv_heads;
  out.head = row % desc.num_kv_heads;
  out.group = desc.num_query_heads / desc.num_kv_heads;
  out.q = p.q.row(out.sequence) + out.head * out.group * desc.head_dim;
  out.table = p.sequences.page_table + out.sequence * p.sequences.table_stride;
  out.scores = p.scores + row * p.sequences.max_pages;
  const int32_t length = checked_length(launch.bad_index, p.sequences, out.sequence, desc.page_size);
  const int32_t pages = (length + desc.page_size - 1) / desc.page_size, units = (pages + (1 << launch.unit_shift) - 1) >> launch.unit_shift;
  out.begin = blockIdx.x % launch.chunks * launch.chunk_units;
  out.end = min(out.begin + launch.chunk_units, units);
  if (out.begin == 0 && threadIdx.x == 0) add_to_counter(p.cache.counters->pages_scored, units);
  return out.begin < out.end;
}

/* Row of statistics of a unit. */
__device__ __forceinline__ int32_t statistics_row(const ScoreLaunch &launch, const ScoreRow &row, int32_t unit) {
  const int64_t place = static_cast<int64_t>(unit) << launch.unit_shift;
  return checked_page(launch.bad_index, row.table, row.sequence * launch.params.sequences.table_stride, place, launch.params.cache.desc.num_pages) >>
         launch.unit_shift;
}

template <typename T>
__device__ StatisticRows<T> rows_of(const CacheView &cache, int64_t layer, int64_t head, int32_t unit_shift) {
  const int64_t first = (layer * cache.desc.num_kv_heads + head) * (cache.desc.num_pages >> unit_shift);
  if (unit_shift > 0)
    return {static_cast<const T *>(cache.group_mean) + first * cache.desc.head_dim, nullptr, nullptr, nullptr, cache.group_std + first, nullptr};
  const int64_t offset = first * cache.desc.head_dim;
  auto shifted = [offset](const void *pool) -> const void * { return pool ? static_cast<const uint16_t *>(pool) + offset : nullptr; };
  return {static_cast<const T *>(cache.mean) + offset,          shifted(cache.variance), shifted(cache.min), shifted(cache.max), cache.std + first,
          cache.mean_scale ? cache.mean_scale + first : nullptr};
}

/* unique and mean */
template <typename T, int D, int Blocks>
__global__ void __launch_bounds__(kThreads, D <= 128 && Blocks == 1 ? 2 : 1) score_kernel(const __grid_constant__ ScoreLaunch launch) {
  let_next_start();
  wait_for_previous();
  ScoreRow row;
  if (!find_units(launch, row)) return;
  const PageScoreParams &p = launch.params;
  const StatisticRows<T> rows = rows_of<T>(p.cache, p.layer, row.head, launch.unit_shift);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  const float lambda = p.scorer == PS_MEAN && launch.unit_shift == 0 ? 0.f : p.lambda;
  PlainQueries<T, D, Blocks> q;
  bool ready = false;
  constexpr int kTilesAtOnce = tiles_at_once(D), kStep = kTilesAtOnce * kTilePages;
  for (int first = row.begin + warp * kStep; first < row.end; first += kWarps * kStep) {
    PageRow<T, D> pages[kTilesAtOnce];
    float std[kTilesAtOnce], scale[kTilesAtOnce];
#pragma unroll
    for (int i = 0; i < kTilesAtOnce; i++) {
      const int32_t at = statistics_row(launch, row, min(first + i * kTilePages + g, row.end - 1));
      load_page_row<T, D>(rows.mean, at, pages[i]);
      std[i] = rows.std[at];
      scale[i] = rows.scale ? rows.scale[at] : 1.f;
    }
    if (!ready) load_queries(row.q, row.group, q);
    ready = true;
#pragma unroll
    for (int i = 0; i < kTilesAtOnce; i++) {
      const float score = score_tile<T, D, Blocks>(q, row.group, lambda, pages[i], std[i], scale[i]);
      const int unit = first + i * kTilePages + 2 * t + g % 2;
      if (g / 2 == i && unit < row.end) row.scores[unit] = score;
    }
  }
}

/* diag and quest: two rows of statistics per page */
template <typename T, int D>
__global__ void __launch_bounds__(kThreads) score_two_rows_kernel(const __grid_constant__ ScoreLaunch launch) {
  let_next_start();
  wait_for_previous();
  ScoreRow row;
  if (!find_units(launch, row)) return;
  const PageScoreParams &p = launch.params;
  const bool quest = p.scorer == PS_QUEST;
  const StatisticRows<T> rows = rows_of<T>(p.cache, p.layer, row.head, 0);
  const T *first_rows = quest ? static_cast<const T *>(rows.max) : rows.mean, *second_rows = static_cast<const T *>(quest ? rows.min : rows.variance);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  for (int block = 0; block * kScoreHeads < row.group; block++) {
    const int heads = row.group - block * kScoreHeads;
    const float *query = row.q + block * kScoreHeads * D;
    QueryRows<D> q, other;
    load_query_rows<T, D>(QueryMemory<D>{query}, heads, quest ? Form::kPositive : Form::kPlain, q);
    load_query_rows<T, D>(QueryMemory<D>{query}, heads, quest ? Form::kNegative : Form::kSquare, other);
    for (int first = row.begin + warp * kTilePages; first < row.end; first += kWarps * kTilePages) {
      const int32_t at = statistics_row(launch, row, min(first + g, row.end - 1));
      PageRow<T, D> page, second;
      load_page_row<T, D>(first_rows, at, page);
      load_page_row<T, D>(second_rows, at, second);
      float dot[2], extra[2];
      dot_tile<T, D>(q, page, dot);
      dot_tile<T, D>(other, second, extra);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int unit = first + 2 * t + i;
        float score = largest_head(dot[i] + (quest ? extra[i] : p.lambda * sqrtf(extra[i])), heads);
        if (g != 0 || unit >= row.end) continue;
        row.scores[unit] = block == 0 ? score : max_nan(score, row.scores[unit]);
      }
    }
  }
}

/* Any dtype, head and group size: one warp a page, plain arithmetic. */
template <typename T>
__global__ void __launch_bounds__(kThreads) score_generic_kernel(const __grid_constant__ ScoreLaunch launch) {
  let_next_start();
  wait_for_previous();
  ScoreRow row;
  if (!find_units(launch, row)) return;
  const PageScoreParams &p = launch.params;
  const ps_cache_desc &desc = p.cache.desc;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t base = Layout(desc).vector(p.layer, row.head, 0), single = Layout(desc).page(p.layer, row.head, 0);
  auto number = [&](const void *pool, int64_t at) { return to_float(static_cast<const T *>(pool)[base + at]); };
  for (int unit = row.begin + warp; unit < row.end; unit += kWarps) {
    const int64_t page = statistics_row(launch, row, unit);
    float best = -INFINITY;
    for (int head = 0; head < row.group; head++) {
      float main = 0, squares = 0, other = 0;
      for (int dim = lane; dim < desc.head_dim; dim += kWarp) {
        const float x = row.q[head * desc.head_dim + dim];
        const int64_t at = page * desc.head_dim + dim;
        squares = fmaf(x, x, squares);
        if (p.scorer == PS_QUEST) main += formed(Form::kPositive, x) * number(p.cache.max, at) + formed(Form::kNegative, x) * number(p.cache.min, at);
        else main = fmaf(x, number(p.cache.mean, at), main);
        if (p.scorer == PS_DIAG) other = fmaf(x * x, number(p.cache.variance, at), other);
      }
      main = warp_sum(main);
      squares = warp_sum(squares);
      other = warp_sum(other);
      if (p.scorer == PS_UNIQUE) main += p.lambda * sqrtf(squares) * p.cache.std[single + page];
      else if (p.scorer == PS_DIAG) main += p.lambda * sqrtf(other);
      best = max_nan(best, main);
    }
    if (lane == 0) row.scores[unit] = best;
  }
}

template <typename T, int D>
void launch_fast(Backend &backend, const ScoreLaunch &params, dim3 grid) {
  const int group = params.params.cache.desc.num_query_heads / params.params.cache.desc.num_kv_heads;
  auto *kernel = group > kScoreHeads ? score_kernel<T, D, 2> : score_kernel<T, D, 1>;
  if constexpr (!std::is_same_v<T, f8>) {
    if (params.params.scorer == PS_DIAG || params.params.scorer == PS_QUEST) kernel = score_two_rows_kernel<T, D>;
  }
  launch(backend, "Could not launch page_score", kernel, grid, dim3(kThreads), 0, params);
}

template <typename T>
bool launch_head_dim(Backend &backend, const ScoreLaunch &params, dim3 grid) {
  switch (params.params.cache.desc.head_dim) {
    case 64: launch_fast<T, 64>(backend, params, grid); return true;
    case 96: launch_fast<T, 96>(backend, params, grid); return true;
    case 128: launch_fast<T, 128>(backend, params, grid); return true;
    case 256: launch_fast<T, 256>(backend, params, grid); return true;
    default: return false;
  }
}

bool launch_mma(Backend &backend, const ScoreLaunch &params, dim3 grid) {
  const PageScoreParams &p = params.params;
  if (p.cache.desc.dtype == PS_F32 || p.cache.desc.num_query_heads / p.cache.desc.num_kv_heads > kFastHeads) return false;
  if (p.cache.mean_scale && params.unit_shift == 0) {
    if (p.scorer == PS_DIAG) throw Error(PS_UNSUPPORTED, "The diag scorer needs means in the dtype of the pages, the cache keeps 8-bit ones");
    if (p.scorer != PS_QUEST) return launch_head_dim<f8>(backend, params, grid);
  }
  return p.cache.desc.dtype == PS_F16 ? launch_head_dim<f16>(backend, params, grid) : launch_head_dim<bf16>(backend, params, grid);
}

}  // namespace

bool has_fast_score(const ps_cache_desc &desc) {
  const int d = desc.head_dim;
  return desc.dtype != PS_F32 && desc.num_query_heads / desc.num_kv_heads <= kFastHeads && (d == 64 || d == 96 || d == 128 || d == 256);
}

/* Copies of bytes are scored on tensor cores only. */
bool keeps_coarse(const ps_cache_desc &desc) { return (desc.statistics & PS_STATISTICS_COARSE) != 0 && has_fast_score(desc); }

void score_units(Backend &backend, const PageScoreParams &params, int32_t unit_pages) {
  const ps_cache_desc &desc = params.cache.desc;
  const int64_t rows = params.sequences.sequences * desc.num_kv_heads, units = ceil_div(params.sequences.max_pages, unit_pages);
  /* about 6 blocks per multiprocessor, each of whole rounds of all its warps */
  const int64_t round = kWarps * tiles_at_once(desc.head_dim) * kTilePages,
                wanted = ceil_div(ceil_div(units * rows, 6 * backend.multiprocessors), round) * round;
  ScoreLaunch launch_params{params, backend.bad_index, 0, 0, unit_pages == 1 ? 0 : 3};
  launch_params.chunk_units = static_cast<int32_t>(wanted < 4 * round ? wanted : 4 * round);
  launch_params.chunks = static_cast<int32_t>(ceil_div(units, launch_params.chunk_units));
  const dim3 grid(static_cast<unsigned>(rows * launch_params.chunks));
  if (launch_mma(backend, launch_params, grid)) return;
  if (params.cache.mean_scale) throw Error(PS_UNSUPPORTED, "8-bit means need a head size of 64, 96, 128 or 256 and at most 16 query heads a KV head");
  with_dtype(desc.dtype, [&](auto type) {
    launch(backend, "Could not launch page_score", score_generic_kernel<decltype(type)>, grid, dim3(kThreads), 0, launch_params);
  });
}

void page_score(Backend &backend, const PageScoreParams &params) { score_units(backend, params, 1); }

}  // namespace ps
