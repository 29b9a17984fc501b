/* Score and selection in one call. With statistics of groups of 8 pages: groups are scored first (one small launch), then one block
 * a row takes the best groups, scores their pages and chooses among them.
 *
 * One level reads P rows of statistics a KV head; two levels read P / 8 + 12 k rows: at 32,768 tokens, page 8 and a budget of 512
 * tokens 31 % of them. A page is missed when 1.5 k groups score higher than its own (docs/performance.md has the recall). */
#include "page_score.cuh"
#include "page_score.h"
#include "select.cuh"

namespace ps {
namespace {

constexpr int kGroupShift = 3, kGroupPages = 1 << kGroupShift;
static_assert(kGroupPages == kTilePages, "A group is a tile of the score's product");
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kTilesAtOnce = 2;
constexpr int64_t kMostGroups = 2048; /* chosen a row: 64 KiB of page scores */
constexpr float kLeastGroupLambda = 0.5f; /* a group's mean alone says too little of its best page */

struct ChooseLaunch {
  PageChooseParams params;
  BadIndex *bad_index;
  int32_t groups; /* chosen a row at most */
};

/* Groups that are chosen of so many: half as many again as the pages that are wanted, and at least a tenth; more than the forced pages
 * can make useless. Fewer would lose pages (docs/performance.md, recall). */
PS_HOST_DEVICE int64_t groups_wanted(const PageSelectParams &p, int64_t groups) {
  const int64_t forced = (int64_t(p.sink_pages) + p.recent_pages < p.k ? int64_t(p.sink_pages) + p.recent_pages : p.k) / kGroupPages + 4;
  const int64_t share = p.k + p.k / 2 > groups / 10 ? p.k + p.k / 2 : groups / 10;
  return share > forced ? share : forced;
}

/* Scores the pages of the chosen groups: keys[8 i + page] of group groups[i]; pages outside [begin, end) get 0. */
template <typename T, int D, int Blocks>
__device__ __forceinline__ void score_groups(const ChooseLaunch &launch, int64_t row, const int32_t *groups, int32_t count, int32_t begin, int32_t end,
                                             uint32_t *keys) {
  const PageScoreParams &p = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t sequence = row / desc.num_kv_heads, head = row % desc.num_kv_heads, first_row = (p.layer * int64_t(desc.num_kv_heads) + head) * desc.num_pages;
  const int group = desc.num_query_heads / desc.num_kv_heads, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  const int32_t *table = p.sequences.page_table + sequence * p.sequences.table_stride;
  const T *means = static_cast<const T *>(p.cache.mean) + first_row * D;
  PlainQueries<T, D, Blocks> q;
  bool ready = false;
  for (int first = warp * kTilesAtOnce; first < count; first += kWarps * kTilesAtOnce) {
    PageRow<T, D> pages[kTilesAtOnce];
    float std[kTilesAtOnce];
#pragma unroll
    for (int i = 0; i < kTilesAtOnce; i++) {
      const int32_t logical = groups[min(first + i, count - 1)] << kGroupShift;
      const int32_t physical = checked_index(launch.bad_index, kPageTable, sequence * p.sequences.table_stride + logical, table[logical], desc.num_pages);
      const int64_t at = (physical >> kGroupShift << kGroupShift) + g; /* the group's pages lie side by side */
      load_page_row<T, D>(means, at, pages[i]);
      std[i] = p.cache.std[first_row + at];
    }
    if (!ready) load_queries(p.q.row(sequence) + head * group * D, group, p.scorer == PS_MEAN ? 0.f : p.lambda, q);
    ready = true;
#pragma unroll
    for (int i = 0; i < kTilesAtOnce; i++) {
      float best[2];
      score_tile<T, D, Blocks>(q, group, pages[i], std[i], 1.f, best);
      if (g >= 2 || first + i >= count) continue;
      const int32_t place = (first + i) * kGroupPages + 2 * t + g, page = (groups[first + i] << kGroupShift) + 2 * t + g;
      /* 0 does not take part; NaN is the lowest that does */
      keys[place] = page >= begin && page < end ? max(ordered_key(g == 0 ? best[0] : best[1]), 1u) : 0u;
    }
  }
}

template <typename T, int D, int Blocks>
__global__ void __launch_bounds__(kThreads) choose_kernel(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ uint32_t memory[];
  __shared__ SelectShared shared;
  let_next_start();
  wait_for_previous();
  const PageSelectParams &p = launch.params.select;
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = blockIdx.x;
  const int32_t length = checked_length(launch.bad_index, p.sequences, row / desc.num_kv_heads, desc.page_size), k = static_cast<int32_t>(p.k);
  const int32_t pages = (length + desc.page_size - 1) / desc.page_size;
  int32_t *out = p.selected + row * k;
  count_selection(p, pages, row == 0);
  if (pages <= k) return take_all(pages, out, p.counts + row);
  const Forced forced = forced_pages(k, p.sink_pages, p.recent_pages);
  write_forced(forced, pages, k, out);
  if (threadIdx.x == 0) p.counts[row] = k;
  if (forced.best == 0) return;

  /* the best groups, ascending */
  int32_t *groups = reinterpret_cast<int32_t *>(memory);
  uint32_t *keys = memory + launch.groups;
  const int32_t all = (pages + kGroupPages - 1) >> kGroupShift, taken = min(static_cast<int32_t>(groups_wanted(p, all)), all);
  const float *scores = p.scores + row * p.sequences.max_pages;
  auto group_key = [&](int32_t i) { return ordered_key(__ldcg(scores + i)); };
  if (taken == all) {
    for (int32_t i = threadIdx.x; i < all; i += kThreads) groups[i] = i;
  } else {
    const Cut cut = find_cut(group_key, all, taken, 0, shared);
    write_taken(group_key, all, cut, [](int32_t i) { return i; }, groups, shared);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(reinterpret_cast<unsigned long long *>(&p.cache.counters->pages_scored), static_cast<unsigned long long>(taken) * kGroupPages);
  }

  /* the best of their pages */
  const int32_t begin = forced.first, end = pages - forced.last;
  score_groups<T, D, Blocks>(launch, row, groups, taken, begin, end, keys);
  __syncthreads();
  auto key = [&](int32_t i) { return keys[i]; };
  const Cut cut = find_cut(key, taken * kGroupPages, forced.best, 1, shared);
  auto page = [&](int32_t i) { return (groups[i >> kGroupShift] << kGroupShift) + i % kGroupPages; };
  write_taken(key, taken * kGroupPages, cut, page, out + forced.first, shared);
}

template <typename T, int D>
void launch_choose(Backend &backend, const ChooseLaunch &params) {
  const ps_cache_desc &desc = params.params.score.cache.desc;
  auto *kernel = desc.num_query_heads / desc.num_kv_heads > kScoreHeads ? choose_kernel<T, D, 2> : choose_kernel<T, D, 1>;
  const int64_t rows = params.params.score.sequences.sequences * desc.num_kv_heads;
  launch(backend, "Could not launch page_choose", kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads),
         params.groups * int64_t(1 + kGroupPages) * int64_t(sizeof(uint32_t)), params);
}

template <typename T>
void launch_head_dim(Backend &backend, const ChooseLaunch &params) {
  switch (params.params.score.cache.desc.head_dim) {
    case 64: return launch_choose<T, 64>(backend, params);
    case 96: return launch_choose<T, 96>(backend, params);
    case 128: return launch_choose<T, 128>(backend, params);
    default: return launch_choose<T, 256>(backend, params);
  }
}

}  // namespace

void page_choose(Backend &backend, const PageChooseParams &params) {
  const PageScoreParams &p = params.score;
  const int64_t groups = groups_wanted(params.select, ceil_div(p.sequences.max_pages, kGroupPages));
  const bool two_levels = p.cache.group_mean && !p.cache.mean_scale && has_fast_score(p.cache.desc) && groups <= kMostGroups &&
                          (p.scorer == PS_UNIQUE || p.scorer == PS_MEAN);
  if (!two_levels) {
    page_score(backend, p);
    page_select(backend, params.select);
    return;
  }
  if (groups * kGroupPages < p.sequences.max_pages) { /* else every group is taken */
    PageScoreParams of_groups = p;
    of_groups.lambda = p.scorer == PS_MEAN || p.lambda < kLeastGroupLambda ? kLeastGroupLambda : p.lambda;
    score_units(backend, of_groups, kGroupPages);
  }
  const ChooseLaunch launch_params{params, backend.bad_index, static_cast<int32_t>(groups)};
  if (p.cache.desc.dtype == PS_F16) launch_head_dim<f16>(backend, launch_params);
  else launch_head_dim<bf16>(backend, launch_params);
}

}  // namespace ps
