/* Score and selection in one call. With statistics of groups of 8 pages one block a row takes the best groups, scores their pages and
 * chooses among them. It scores the groups too, where rows are many or groups few; else a launch before it does.
 *
 * One level reads P rows of statistics a KV head; two levels read P / 8 + 12 k rows (more from 15 k groups on): at 32,768 tokens, page 8
 * and a budget of 512 tokens 31 % of them. A page is missed when 1.5 k groups score higher than its own (docs/performance.md has the recall). */
#include <algorithm>

#include "block_select.cuh"
#include "coarse_choose.h"
#include "group_choice.cuh"
#include "page_score.h"
#include "select.cuh"

namespace ps {
namespace {

constexpr int kTilesAtOnce = 2;
constexpr int kGroupItems = 8, kPageItems = 8; /* keys per thread */
/* More rows than two per multiprocessor: small blocks, of which several share one, so that some read while others count. Few rows: one large block
 * each. */
constexpr int kManyRows = 264, kSomeRows = 132, kSmallBlock = 128, kMiddleBlock = 256, kLargeBlock = 512, kHeavyBlock = 256;
constexpr int64_t kFewGroups = 512; /* of a row: its own block scores them sooner than another launch would */
constexpr PS_HOST_DEVICE bool is_light(int head_dim, int blocks) { return head_dim <= 128 && blocks == 1; }
/* Blocks that share a multiprocessor. */
constexpr PS_HOST_DEVICE int together(int threads) { return threads == kSmallBlock ? 4 : threads == kMiddleBlock ? 2 : 1; }
constexpr int64_t kMostGroups = 2048; /* chosen per row: 64 KiB of page scores */

struct ChooseLaunch {
  PageChooseParams params;
  BadIndex *bad_index;
  int32_t groups;        /* chosen per row at most, a multiple of 4 */
  int32_t keys;          /* held at once at most */
  int32_t scores_groups; /* whether a row's block scores them itself, or reads scores that are there */
};

template <int Threads>
struct ChooseShared {
  union {
    BlockSelectShared<Threads> few; /* up to kMostSelected keys */
    SelectShared many;
  };
  Span spans[Threads / kWarp];
};

/* The span of the block's keys, in every thread. Behind its barrier all keys are there and bins are zero. */
template <int Threads>
__device__ __forceinline__ Span join_threads(const Span &own, ChooseShared<Threads> &shared) {
  const int lane = threadIdx.x % kWarp;
  clear_bins(shared.few);
  const Span of_warp = joined_lanes(own);
  if (lane == 0) shared.spans[threadIdx.x / kWarp] = of_warp;
  __syncthreads();
  return joined_lanes(lane < Threads / kWarp ? shared.spans[lane] : no_keys());
}

/* The physical group of a row's logical one. */
__device__ __forceinline__ int32_t physical_group(const ChooseLaunch &launch, int64_t row, int32_t logical) {
  const PageScoreParams &p = launch.params.score;
  const int64_t offset = row / p.cache.desc.num_kv_heads * p.sequences.table_stride;
  return checked_page(launch.bad_index, p.sequences.page_table + offset, offset, int64_t(logical) << kGroupShift, p.cache.desc.num_pages) >>
         kGroupShift;
}

/* Physical groups of a row. May run before earlier kernels are done. */
__device__ __forceinline__ void find_groups(const ChooseLaunch &launch, int64_t row, int32_t all, uint32_t *physical) {
#pragma unroll 4
  for (int32_t i = threadIdx.x; i < all; i += blockDim.x) physical[i] = static_cast<uint32_t>(physical_group(launch, row, i));
}

/* Scores of all groups of a row, as keys in shared memory, where their physical numbers are. */
template <typename T, int D, int Blocks>
__device__ __forceinline__ void score_groups(const ChooseLaunch &launch, const PlainQueries<T, D, Blocks> &q, int64_t row, int32_t all,
                                             uint32_t *keys, Span &span) {
  const PageScoreParams &p = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  const Level<T> level = group_level<T>(p, row % desc.num_kv_heads);
  const int g = threadIdx.x % kWarp / 4;
  auto row_of = [&](int32_t tile) { return static_cast<int32_t>(keys[min(tile * kTilePages + g, all - 1)]); };
  score_tiles<T, D, Blocks, kTilesAtOnce>(q, desc.num_query_heads / desc.num_kv_heads, level, (all + kTilePages - 1) / kTilePages, row_of,
                                          [&](int32_t tile, int i, float score) {
                                            const uint32_t key = ordered_key(score);
                                            if (tile * kTilePages + i < all) keys[tile * kTilePages + i] = key, span = with_key(span, key);
                                          });
}

/* Scores of the pages of the chosen groups: keys[8 i + page] of group groups[i]; pages outside [begin, end) get 0 and do not take part. */
template <typename T, int D, int Blocks>
__device__ __forceinline__ void score_pages(const ChooseLaunch &launch, const PlainQueries<T, D, Blocks> &q, int64_t row, const int32_t *groups,
                                            int32_t count, int32_t begin, int32_t end, uint32_t *keys, Span &span) {
  const PageScoreParams &p = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  const Level<T> level = page_level<T>(p, row % desc.num_kv_heads);
  const int g = threadIdx.x % kWarp / 4;
#pragma unroll 2
  for (int32_t i = threadIdx.x; i < count; i += blockDim.x) { /* physical numbers first, where the keys come; a group's pages lie side by side */
    keys[i * kGroupPages] = static_cast<uint32_t>(physical_group(launch, row, groups[i])) << kGroupShift;
  }
  __syncthreads();
  auto row_of = [&](int32_t tile) { return static_cast<int32_t>(keys[tile * kGroupPages]) + g; };
  score_tiles<T, D, Blocks, kTilesAtOnce>(q, desc.num_query_heads / desc.num_kv_heads, level, count, row_of, [&](int32_t tile, int i, float score) {
    const int32_t page = (groups[tile] << kGroupShift) + i;
    const uint32_t key = page >= begin && page < end ? ordered_key(score) : 0u;
    keys[tile * kGroupPages + i] = key;
    span = with_key(span, key);
  });
}

/* The best groups of a row and the last `given`, ascending; returns how many. `keys` is scratch. */
template <typename T, int D, int Blocks, int Threads>
__device__ __forceinline__ int32_t choose_groups(const ChooseLaunch &launch, const PlainQueries<T, D, Blocks> &q, int64_t row, int32_t all,
                                                 int32_t given, int32_t *groups, uint32_t *keys, ChooseShared<Threads> &shared) {
  const PageSelectParams &p = launch.params.select;
  const int32_t taken = groups_taken(p, all);
  if (taken == all) {
    for (int32_t i = threadIdx.x; i < all; i += blockDim.x) groups[i] = i;
    __syncthreads();
    return taken;
  }
  const float *scores = p.scores + row * p.sequences.max_pages;
  const int32_t scored = all - given; /* the given ones come last */
  const bool few = scored <= kMostSelected;
  Span own = no_keys();
  if (launch.scores_groups) {
    score_groups<T, D, Blocks>(launch, q, row, scored, keys, own);
  } else if (few) {
    for (int32_t i = threadIdx.x; i < scored; i += Threads) keys[i] = ordered_key(scores[i]), own = with_key(own, keys[i]);
  }
  if (threadIdx.x < given) groups[taken - given + threadIdx.x] = scored + threadIdx.x;
  if (threadIdx.x == 0) add_to_counter(p.cache.counters->pages_scored, taken * kGroupPages + (launch.scores_groups ? scored : 0));
  if (few) {
    select_here(keys, scored, join_threads(own, shared), taken - given, shared.few, groups);
    return taken;
  }
  __syncthreads();
  auto key = [&](int32_t i) { return launch.scores_groups ? keys[i] : ordered_key(scores[i]); };
  Keys<kGroupItems, decltype(key)> held(key, scored);
  const Cut cut = find_cut(held, taken - given, shared.many);
  write_taken(held, cut, [](int32_t i) { return i; }, groups, shared.many);
  return taken;
}

template <typename T, int D, int Blocks, int Threads>
__global__ void __launch_bounds__(Threads, is_light(D, Blocks) ? together(Threads) : 1) choose_kernel(const __grid_constant__ ChooseLaunch launch) {
  extern __shared__ __align__(16) uint32_t memory[];
  __shared__ ChooseShared<Threads> shared;
  const bool fills_device = gridDim.x > kManyRows; /* else blocks of the next kernel would crowd where these leave room first */
  if (fills_device) let_next_start();
  const PageSelectParams &p = launch.params.select;
  const ps_cache_desc &desc = p.cache.desc;
  const int64_t row = blockIdx.x;
  const int32_t length = checked_length(launch.bad_index, p.sequences, row / desc.num_kv_heads, desc.page_size), k = static_cast<int32_t>(p.k);
  const int32_t pages = (length + desc.page_size - 1) / desc.page_size;
  int32_t *out = p.selected + row * k;
  int32_t *groups = reinterpret_cast<int32_t *>(memory);
  uint32_t *keys = memory + launch.groups;
  const int32_t all = (pages + kGroupPages - 1) >> kGroupShift;
  if (launch.scores_groups && pages > k && groups_taken(p, all) < all) find_groups(launch, row, all, keys);
  wait_for_previous();
  __syncthreads();
  count_selection(p, pages, row == 0);
  if (pages <= k) return take_all(pages, out, p.counts + row);
  const Forced forced = forced_pages(k, p.sink_pages, p.recent_pages);
  write_forced(forced, pages, k, out);
  if (threadIdx.x == 0) p.counts[row] = k;
  if (forced.best == 0) return;

  const PageScoreParams &score = launch.params.score;
  const int group = desc.num_query_heads / desc.num_kv_heads;
  PlainQueries<T, D, Blocks> q;
  load_queries(score.q.row(row / desc.num_kv_heads) + row % desc.num_kv_heads * group * D, group, q);
  const int32_t taken = choose_groups<T, D, Blocks, Threads>(launch, q, row, all, groups_given(forced), groups, keys, shared);
  if (!fills_device) let_next_start();

  /* the best of their pages */
  const int32_t begin = forced.first, end = pages - forced.last;
  Span own = no_keys();
  score_pages<T, D, Blocks>(launch, q, row, groups, taken, begin, end, keys, own);
  auto page = [&](int32_t i) { return (groups[i >> kGroupShift] << kGroupShift) + i % kGroupPages; };
  if (taken * kGroupPages <= kMostSelected) {
    int32_t *places = reinterpret_cast<int32_t *>(keys + launch.keys);
    select_here(keys, taken * kGroupPages, join_threads(own, shared), forced.best, shared.few, places);
    for (int32_t i = threadIdx.x; i < forced.best; i += Threads) out[forced.first + i] = page(places[i]);
    return;
  }
  __syncthreads();
  auto key = [&](int32_t i) { return keys[i]; };
  Keys<kPageItems, decltype(key)> page_keys(key, taken * kGroupPages);
  const Cut cut = find_cut(page_keys, forced.best, shared.many);
  write_taken(page_keys, cut, page, out + forced.first, shared.many);
}

template <typename T, int D, int Blocks, int Threads>
void launch_threads(Backend &backend, ChooseLaunch params, int64_t rows) {
  const int64_t all = ceil_div(params.params.score.sequences.max_pages, kGroupPages), chosen = params.groups * int64_t(kGroupPages);
  const int64_t held = params.scores_groups ? all : std::min<int64_t>(all, kMostSelected); /* of groups; more are read where their scores lie */
  params.keys = static_cast<int32_t>(std::max(held, chosen));
  params.groups = static_cast<int32_t>(ceil_div(params.groups, 4) * 4); /* keys behind them are read in fours */
  const int64_t numbers = params.groups + params.keys + params.params.select.k;
  launch(backend, "Could not launch page_choose", choose_kernel<T, D, Blocks, Threads>, dim3(static_cast<unsigned>(rows)), dim3(Threads),
         numbers * int64_t(sizeof(uint32_t)), params);
}

template <typename T, int D>
void launch_choose(Backend &backend, const ChooseLaunch &params) {
  const ps_cache_desc &desc = params.params.score.cache.desc;
  const int64_t rows = params.params.score.sequences.sequences * desc.num_kv_heads;
  if (desc.num_query_heads / desc.num_kv_heads > kScoreHeads) return launch_threads<T, D, 2, kHeavyBlock>(backend, params, rows);
  if constexpr (is_light(D, 1)) {
    if (rows > kManyRows) return launch_threads<T, D, 1, kSmallBlock>(backend, params, rows);
    if (rows < kSomeRows) return launch_threads<T, D, 1, kLargeBlock>(backend, params, rows);
  }
  launch_threads<T, D, 1, kMiddleBlock>(backend, params, rows);
}

int64_t most_groups(const PageChooseParams &params) { return groups_wanted(params.select, ceil_div(params.score.sequences.max_pages, kGroupPages)); }

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

bool chooses_by_groups(const PageChooseParams &params) {
  const PageScoreParams &p = params.score;
  return p.cache.group_mean && !p.cache.mean_scale && has_fast_score(p.cache.desc) && most_groups(params) <= kMostGroups &&
         (p.scorer == PS_UNIQUE || p.scorer == PS_MEAN);
}

void page_choose(Backend &backend, const PageChooseParams &params) {
  const PageScoreParams &p = params.score;
  if (!chooses_by_groups(params)) {
    if (coarse_choose(backend, params)) return;
    page_score(backend, p);
    page_select(backend, params.select);
    return;
  }
  /* The many groups of few rows are scored by more blocks than there are rows. */
  const int64_t all = ceil_div(p.sequences.max_pages, kGroupPages), groups = most_groups(params);
  const bool many_rows = p.sequences.sequences * p.cache.desc.num_kv_heads >= kManyRows;
  const bool scores_groups = all <= (many_rows ? kMostGroups * kGroupPages : kFewGroups);
  if (!scores_groups && groups < all) {
    PageScoreParams of_groups = p;
    of_groups.lambda = group_lambda(p);
    score_units(backend, of_groups, kGroupPages);
  }
  const ChooseLaunch launch_params{params, backend.bad_index, static_cast<int32_t>(groups), 0, scores_groups};
  if (p.cache.desc.dtype == PS_F16) launch_head_dim<f16>(backend, launch_params);
  else launch_head_dim<bf16>(backend, launch_params);
}

}  // namespace ps
