/* Score and selection in one launch by coarse copies of the statistics: all pages of a row are scored by them, the best 2 k again by the
 * statistics, and the best of those are chosen.
 *
 * Bound by the copies it reads: d + 8 bytes per page and KV head for unique, 1.25 d + 4 for diag, instead of 2 d + 4 and 4 d. One block per
 * multiprocessor takes row after row. Its scoring warps only read and score; the others choose among the row before, so that the memory is
 * busy all the time. */
#include "coarse_choose.h"

#include "coarse_score.cuh"
#include "page_score.h"
#include "select.cuh"

namespace ps {
namespace {

/* The warps of a block; the registers of large heads allow fewer. Choosing ones come first. */
template <int D>
struct Roles {
  static constexpr int kChoosing = 4, kScoring = D <= 128 ? 12 : 8;
  static constexpr int kThreads = (kChoosing + kScoring) * kWarp;
  static constexpr int kTiles = 2; /* that a scoring warp has under way */
  using Team = FirstThreads<kChoosing * kWarp>;
};

constexpr int kItems = 16;  /* keys per thread */
constexpr int kBuffers = 2; /* rows of keys: one is filled while the other is read */
constexpr int64_t kMostCandidates = 4096;
/* Pages that are scored again, per page that is wanted: all that matter are among them on the keys of real models (docs/notes/statistics.md).
 * Up to k more are taken where the cut is found sooner. */
constexpr int kCandidates = 2;

PS_HOST_DEVICE constexpr int64_t most_candidates(int64_t k) { return (kCandidates + 1) * k; }

/* Barriers 0 and 1 are those of the block and of the choosing warps. */
constexpr int kFilled = 2, kEmptied = kFilled + kBuffers;

template <int Threads>
__device__ __forceinline__ void barrier_wait(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}
template <int Threads>
__device__ __forceinline__ void barrier_arrive(int id) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}

struct CoarseLaunch {
  PageChooseParams params;
  BadIndex *bad_index;
  int64_t rows;
};

/* A row (sequence and KV head), as both roles see it. */
struct CoarseRow {
  int64_t row, sequence, head, table_offset;
  const int32_t *table;
  const float *q;
  int32_t pages, all; /* of the row; that can be chosen, from forced.first on */
  Forced forced;
  bool coarse; /* so many that they are scored by the copies first */
};

__device__ __forceinline__ CoarseRow find_row(const CoarseLaunch &launch, int64_t row) {
  const PageSelectParams &p = launch.params.select;
  const PageScoreParams &score = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  CoarseRow out;
  out.row = row;
  out.sequence = row / desc.num_kv_heads;
  out.head = row % desc.num_kv_heads;
  out.table_offset = out.sequence * score.sequences.table_stride;
  out.table = score.sequences.page_table + out.table_offset;
  out.q = score.q.row(out.sequence) + out.head * (desc.num_query_heads / desc.num_kv_heads) * desc.head_dim;
  const int32_t length = checked_length(launch.bad_index, p.sequences, out.sequence, desc.page_size);
  out.pages = (length + desc.page_size - 1) / desc.page_size;
  out.forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  out.all = out.pages - out.forced.first - out.forced.last;
  out.coarse = out.pages > p.k && out.forced.best > 0 && out.all > most_candidates(p.k);
  return out;
}

/* A page with a coarse score that is not a number is scored again. */
__device__ __forceinline__ uint32_t coarse_key(float score) { return score != score ? 0xffffffffu : ordered_key(score); }

/* The key of a page by the heads of several products: the larger, and that of NaN if either is. */
__device__ __forceinline__ uint32_t join_keys(uint32_t a, uint32_t b) {
  constexpr uint32_t kNan = 1;
  return a == kNan || b == kNan ? kNan : max(a, b);
}

/* Keys of `count` pages by the scores of all heads of the row, by `warps` warps. prepare(first, heads) loads the queries of so many heads from
 * `first` on, while the first rows are under way. */
template <int Tiles, typename Scorer, typename PageOf, typename KeyOf, typename Prepare>
__device__ __forceinline__ void make_keys(const Scorer &scorer, const CoarseLaunch &launch, const CoarseRow &row, int warp, int warps, int32_t count,
                                          const PageOf &page_of, const KeyOf &key_of, const Prepare &prepare, uint32_t *keys) {
  const ps_cache_desc &desc = launch.params.score.cache.desc;
  const int group = desc.num_query_heads / desc.num_kv_heads;
  auto look_up = [&](int32_t i) { return row.table[page_of(i)]; };
  auto check = [&](int32_t i, int32_t page) {
    return checked_index(launch.bad_index, kPageTable, row.table_offset + page_of(i), page, desc.num_pages);
  };
  for (int first = 0; first < group; first += kScoreHeads) {
    score_pages<Tiles>(
        scorer, warp, warps, count, look_up, check, [&] { prepare(first, min(group - first, kScoreHeads)); },
        [&](int32_t i, float score) {
          const uint32_t key = key_of(score);
          keys[i] = first == 0 ? key : join_keys(key, keys[i]);
        });
  }
}

/* Fills the buffers with the keys of one row after the other. */
template <int D, Kind Score>
__device__ __forceinline__ void score_rows(const CoarseLaunch &launch, uint32_t *buffers) {
  const PageScoreParams &score = launch.params.score;
  constexpr int kThreads = Roles<D>::kThreads;
  const int warp = threadIdx.x / kWarp - Roles<D>::kChoosing;
  int turn = 0;
  for (int64_t at = blockIdx.x; at < launch.rows; at += gridDim.x) {
    const CoarseRow row = find_row(launch, at);
    if (!row.coarse) continue;
    const int buffer = turn % kBuffers;
    if (turn >= kBuffers) barrier_wait<kThreads>(kEmptied + buffer);
    CoarseScorer<D, Score> scorer(score, row.head);
    make_keys<Roles<D>::kTiles>(
        scorer, launch, row, warp, Roles<D>::kScoring, row.all, [&](int32_t i) { return row.forced.first + i; }, coarse_key,
        [&](int first, int heads) { scorer.load_queries(row.q + first * D, heads); }, buffers + buffer * score.sequences.max_pages);
    barrier_arrive<kThreads>(kFilled + buffer);
    turn++;
  }
  for (int left = max(0, turn - kBuffers); left < turn; left++) barrier_wait<kThreads>(kEmptied + left % kBuffers);
}

/* Chooses the pages of one row after the other. */
template <typename T, int D, Kind Score>
__device__ __forceinline__ void choose_rows(const CoarseLaunch &launch, const uint32_t *buffers, int32_t *candidates, uint32_t *keys,
                                            SelectShared &shared, SharedColumns<D> &columns) {
  using Team = typename Roles<D>::Team;
  constexpr int kThreads = Roles<D>::kThreads;
  const PageSelectParams &p = launch.params.select;
  const PageScoreParams &score = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  const int32_t k = static_cast<int32_t>(p.k);
  const int group = desc.num_query_heads / desc.num_kv_heads;
  int turn = 0;
  for (int64_t at = blockIdx.x; at < launch.rows; at += gridDim.x) {
    const CoarseRow row = find_row(launch, at);
    if (at > 0) count_selection(p, row.pages, false);
    int32_t *out = p.selected + at * k;
    if (row.pages <= k) {
      take_all<Team>(row.pages, out, p.counts + at);
      continue;
    }
    write_forced<Team>(row.forced, row.pages, k, out);
    if (threadIdx.x == 0) p.counts[at] = k;
    if (row.forced.best == 0) continue;

    ExactScorer<T, D, Score, Team> scorer(score, row.head, columns);
    scorer.load_queries(row.q, min(group, kScoreHeads));
    int32_t taken = row.all;
    if (row.coarse) {
      const int buffer = turn % kBuffers;
      const uint32_t *coarse_keys = buffers + buffer * score.sequences.max_pages;
      barrier_wait<kThreads>(kFilled + buffer);
      auto key = [&](int32_t i) { return coarse_keys[i]; };
      Keys<kItems, decltype(key), Team> held(key, row.all);
      const Cut cut = find_cut(held, kCandidates * k, shared, k);
      write_taken(held, cut, [&](int32_t i) { return row.forced.first + i; }, candidates, shared); /* ends with a barrier */
      barrier_arrive<kThreads>(kEmptied + buffer);
      taken = cut.count;
      turn++;
    } else {
      for (int32_t i = threadIdx.x; i < row.all; i += Team::threads()) candidates[i] = row.forced.first + i;
      Team::sync();
    }

    make_keys<1>(
        scorer, launch, row, threadIdx.x / kWarp, Roles<D>::kChoosing, taken, [&](int32_t i) { return candidates[i]; }, ordered_key,
        [&](int first, int heads) {
          if (first > 0) scorer.load_queries(row.q + first * D, heads);
        },
        keys);
    if (threadIdx.x == 0) {
      add_to_counter(p.cache.counters->pages_scored, taken);
      if (row.coarse) add_to_counter(p.cache.counters->copies_scored, row.all);
    }
    Team::sync();
    auto key = [&](int32_t i) { return keys[i]; };
    Keys<kItems, decltype(key), Team> held(key, taken);
    const Cut cut = find_cut(held, row.forced.best, shared);
    write_taken(held, cut, [&](int32_t i) { return candidates[i]; }, out + row.forced.first, shared);
  }
}

template <int D>
struct CoarseShared {
  SelectShared select;
  SharedColumns<D> columns;
};

template <typename T, int D, Kind Score>
__global__ void __launch_bounds__(Roles<D>::kThreads, 1) coarse_kernel(const __grid_constant__ CoarseLaunch launch) {
  extern __shared__ uint4 memory[]; /* CoarseShared, then candidates of one row, their keys, keys of two rows */
  CoarseShared<D> &shared = *reinterpret_cast<CoarseShared<D> *>(memory);
  wait_for_previous();
  if (blockIdx.x == 0) count_selection(launch.params.select, find_row(launch, 0).pages, true);
  const int64_t most = most_candidates(launch.params.select.k);
  uint32_t *candidates = reinterpret_cast<uint32_t *>(&shared + 1), *buffers = candidates + 2 * most;
  if (threadIdx.x / kWarp >= Roles<D>::kChoosing) score_rows<D, Score>(launch, buffers);
  else choose_rows<T, D, Score>(launch, buffers, reinterpret_cast<int32_t *>(candidates), candidates + most, shared.select, shared.columns);
}

template <typename T, int D, Kind Score>
bool launch_coarse(Backend &backend, const CoarseLaunch &params) {
  const int64_t keys = 2 * most_candidates(params.params.select.k) + kBuffers * params.params.score.sequences.max_pages;
  const int64_t bytes = int64_t(sizeof(CoarseShared<D>)) + keys * int64_t(sizeof(uint32_t));
  if (bytes > backend.shared_bytes) return false;
  const unsigned blocks = static_cast<unsigned>(std::min<int64_t>(params.rows, backend.multiprocessors));
  launch(backend, "Could not launch page_choose", coarse_kernel<T, D, Score>, dim3(blocks), dim3(Roles<D>::kThreads), bytes, params);
  return true;
}

template <typename T, Kind Score>
bool launch_head_dim(Backend &backend, const CoarseLaunch &params) {
  switch (params.params.score.cache.desc.head_dim) {
    case 64: return launch_coarse<T, 64, Score>(backend, params);
    case 96: return launch_coarse<T, 96, Score>(backend, params);
    case 128: return launch_coarse<T, 128, Score>(backend, params);
    default: return launch_coarse<T, 256, Score>(backend, params);
  }
}

template <typename T>
bool launch_kind(Backend &backend, const CoarseLaunch &params) {
  return params.params.score.scorer == PS_DIAG ? launch_head_dim<T, Kind::kDiag>(backend, params)
                                               : launch_head_dim<T, Kind::kSpread>(backend, params);
}

}  // namespace

bool coarse_choose(Backend &backend, const PageChooseParams &params) {
  const PageScoreParams &p = params.score;
  const int64_t rows = p.sequences.sequences * p.cache.desc.num_kv_heads, k = params.select.k;
  if (p.cache.coarse == nullptr || p.scorer == PS_QUEST || !has_fast_score(p.cache.desc)) return false;
  if (most_candidates(k) > kMostCandidates || p.sequences.max_pages < 2 * most_candidates(k)) return false;
  if (4 * rows < backend.multiprocessors) return false; /* a block per row would leave too much of the device idle */
  const CoarseLaunch launch_params{params, backend.bad_index, rows};
  return p.cache.desc.dtype == PS_F16 ? launch_kind<f16>(backend, launch_params) : launch_kind<bf16>(backend, launch_params);
}

}  // namespace ps
