/* Score and selection in one launch by coarse copies of the statistics: all pages of a row are scored by them, the best 2 k again by the
 * statistics, and the best of those are chosen.
 *
 * Bound by the copies it reads: d + 8 bytes per page and KV head for unique, 1.25 d + 4 for diag, instead of 2 d + 4 and 4 d. One block per
 * multiprocessor takes row after row. Its scoring warps only read and score; the others choose among the row before. Copies arrive through
 * rings that run on into the next row, so that the memory is busy all the time. */
#include "coarse_choose.h"

#include <utility>

#include "coarse_keys.cuh"
#include "coarse_stream.cuh"
#include "page_score.h"
#include "prefetch.cuh"
#include "select.cuh"

namespace ps {
namespace {

constexpr int kHeldKeys = 4096; /* by all choosing threads at once */

/* The warps of a block; the registers of large heads allow fewer. Choosing ones come first. Five warps per scheduler leave 96 registers each: what
 * hardly runs is not inlined, because a spilled register costs a trip to the L2 cache where shared memory has taken the L1 cache. */
template <int D>
struct Roles {
  static constexpr int kChoosing = D <= 128 ? 8 : 6, kScoring = D <= 128 ? 11 : 8;
  static constexpr int kThreads = (kChoosing + kScoring + 1) * kWarp; /* the last warp prepares queries */
  using Team = FirstThreads<kChoosing * kWarp>;
  using Keys = RunKeys<(kHeldKeys / Team::threads() + 3) / 4 * 4, Team>;
};

constexpr int kCandidateItems = 4; /* keys per thread */
constexpr int kMostBuffers = 2;    /* rows of keys: one is filled while the other is read, where both fit */
constexpr int64_t kMostCandidates = 4096;

/* Barriers 0 and 1 are those of the block and of the choosing warps. */
constexpr int kFilled = 2, kEmptied = kFilled + kMostBuffers;

template <int Threads>
__device__ __forceinline__ void barrier_wait(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}
template <int Threads>
__device__ __forceinline__ void barrier_arrive(int id) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "n"(Threads) : "memory");
}

template <int D, Kind Score>
using Ring = CoarseRing<D, Score, Roles<D>::kScoring>;

/* A page with a coarse score that is not a number is scored again. */
__device__ __forceinline__ uint32_t coarse_key(float score) { return score != score ? 0xffffffffu : ordered_key(score); }

/* The key of a page by the heads of several products: the larger, and that of NaN if either is. */
__device__ __forceinline__ uint32_t join_keys(uint32_t a, uint32_t b) {
  constexpr uint32_t kNan = 1;
  return a == kNan || b == kNan ? kNan : max(a, b);
}

/* Queries of a row, for its passes of kScoreHeads heads. */
constexpr int kMostPasses = 2;
static_assert(kFastHeads <= kMostPasses * kScoreHeads, "Rows have more query heads than passes");
template <int D, Kind Score>
struct PreparedQueries {
  SharedCoarseQueries<D, Score> passes[kMostPasses];
};

/* Fills the buffers with the keys of one row after the other. */
template <int D, Kind Score>
__device__ __forceinline__ void score_rows(const CoarseLaunch &launch, uint32_t *buffers, unsigned char *rings,
                                           const PreparedQueries<D, Score> *prepared) {
  constexpr int kThreads = Roles<D>::kThreads, kWarps = Roles<D>::kScoring;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp - Roles<D>::kChoosing, t = lane % 4;
  const int own = tile_row(lane / 4) + t % 2 * kHalfTile; /* the page of a tile whose score this lane stores */
  CoarseScorer<D, Score> scorer;
  Ring<D, Score> ring(launch, rings, warp);
  int turn = 0;
  for (int32_t at = blockIdx.x; at < launch.rows; at += gridDim.x) {
    const CoarseRow row = find_row(launch, at);
    if (!row.coarse) continue;
    const int buffer = turn % launch.buffers;
    uint32_t *keys = buffers + buffer * launch.buffer_words;
    barrier_wait<kThreads>(kEmptied + buffer);
    for (int first = 0; first < launch.group; first += kScoreHeads) {
      const int heads = min(launch.group - first, kScoreHeads);
      prepared[buffer].passes[first / kScoreHeads].read(scorer.q);
      for (int32_t page = warp * kCoarseTile + own; page - own < row.pages; page += kWarps * kCoarseTile) {
        const float2 scores = scorer.score(ring.next(), heads);
        if (t < 2 && page < row.pages) {
          const uint32_t key = page >= row.forced.first && page < row.pages - row.forced.last ? coarse_key(t == 0 ? scores.x : scores.y) : 0;
          uint32_t &of_page = keys[Roles<D>::Keys::key_place(page)];
          of_page = first == 0 ? key : join_keys(key, of_page);
        }
      }
    }
    barrier_arrive<kThreads>(kFilled + buffer);
    turn++;
  }
  for (int left = turn; left < turn + launch.buffers; left++) barrier_wait<kThreads>(kEmptied + left % launch.buffers);
}

/* Pages of a row that are scored again. */
struct Candidates {
  int32_t *logical, *physical;
  uint32_t *keys;
};
__device__ __forceinline__ Candidates candidates_at(uint32_t *lists, int64_t most) {
  return {reinterpret_cast<int32_t *>(lists), reinterpret_cast<int32_t *>(lists + most), lists + 2 * most};
}

/* Goes to the next row after `at` that is scored by copies; false where there is none. */
__device__ __forceinline__ bool find_coarse_row(const CoarseLaunch &launch, int32_t &at, CoarseRow &row) {
  for (at += gridDim.x; at < launch.rows; at += gridDim.x) {
    row = find_row(launch, at);
    if (row.coarse) return true;
  }
  return false;
}

/* Not inlined: it would take the registers of roles that hardly need it. */
template <typename T, int D, Kind Score>
__device__ __noinline__ void share_queries(const float *queries, int heads, ExactQueries<D> *out) {
  write_queries<T, D, Score>(queries, heads, *out);
}

/* Prepares queries, so that the other warps do not wait for them: by one warp. While row n is chosen among, those of row n + 1 for those who
 * choose, and those of the row that takes its buffer for those who score. */
template <typename T, int D, Kind Score>
__device__ __forceinline__ void prepare_rows(const CoarseLaunch &launch, ExactQueries<D> *exact, PreparedQueries<D, Score> *prepared) {
  constexpr int kThreads = Roles<D>::kThreads;
  const PageScoreParams &score = launch.params.score;
  int32_t next = static_cast<int32_t>(blockIdx.x) - static_cast<int32_t>(gridDim.x), ahead = next;
  CoarseRow row;
  auto prepare = [&](int buffer) {
    if (find_coarse_row(launch, ahead, row)) {
      for (int first = 0; first < launch.group; first += kScoreHeads) {
        CoarseQueries<D, Score> own;
        load_queries(score, row.q + first * D, min(launch.group - first, kScoreHeads), own);
        prepared[buffer].passes[first / kScoreHeads].write(own);
      }
    }
    barrier_arrive<kThreads>(kEmptied + buffer);
  };
  for (int buffer = 0; buffer < launch.buffers; buffer++) prepare(buffer);
  bool has_next = find_coarse_row(launch, next, row);
  for (int turn = 0; has_next; turn++) {
    share_queries<T, D, Score>(row.q, min(launch.group, kScoreHeads), exact + turn % 2);
    const int buffer = turn % launch.buffers;
    barrier_wait<kThreads>(kFilled + buffer);
    prepare(buffer);
    has_next = find_coarse_row(launch, next, row);
  }
}

template <int D, Kind Score>
struct alignas(kLineBytes) CoarseShared {
  SelectShared select;
  ExactQueries<D> exact[2];
  PreparedQueries<D, Score> prepared[kMostBuffers];
};

/* Chooses the pages of a row; `turn` counts those that were scored by copies. */
template <typename T, int D, Kind Score>
__device__ __forceinline__ void choose_row(const CoarseLaunch &launch, int32_t at, int &turn, const uint32_t *buffers, const Candidates &candidates,
                                           SelectShared &shared, ExactQueries<D> *exact) {
  using Team = typename Roles<D>::Team;
  constexpr int kThreads = Roles<D>::kThreads;
  const PageSelectParams &p = launch.params.select;
  const PageScoreParams &score = launch.params.score;
  const int32_t k = static_cast<int32_t>(p.k);
  const CoarseRow row = find_row(launch, at);
  if (at > 0) count_selection(p, row.pages, false);
  int32_t *out = p.selected + int64_t(at) * k;
  if (row.pages <= k) return take_all<Team>(row.pages, out, p.counts + at);
  write_forced<Team>(row.forced, row.pages, k, out);
  if (threadIdx.x == 0) p.counts[at] = k;
  if (row.forced.best == 0) return;

  const int slot = row.coarse ? turn % 2 : (turn + 1) % 2; /* one is being prepared for the next row with copies */
  const ExactScorer<T, D, Score, Team> scorer(score, row.statistics, exact[slot]);
  int32_t taken = row.all;
  if (row.coarse) {
    const int buffer = turn % launch.buffers;
    barrier_wait<kThreads>(kFilled + buffer);
    typename Roles<D>::Keys held(buffers + buffer * launch.buffer_words, row.pages);
    const Cut cut = find_cut(held, kCandidates * k, shared, k);
    write_taken(held, cut, candidates.logical, shared);
    barrier_arrive<kThreads>(kEmptied + buffer);
    taken = cut.count;
    turn++;
  } else {
    for (int32_t i = threadIdx.x; i < row.all; i += Team::threads()) candidates.logical[i] = row.forced.first + i;
    Team::sync();
  }
  for (int32_t i = threadIdx.x; i < taken; i += Team::threads()) {
    const int32_t physical =
        checked_page(launch.bad_index, row.table, row.table - score.sequences.page_table, candidates.logical[i], p.cache.desc.num_pages);
    scorer.prefetch(physical);
    candidates.physical[i] = physical;
  }
  Team::sync();

  for (int first = 0; first < launch.group; first += kScoreHeads) {
    if (first > 0 || !row.coarse) {
      Team::sync();
      if (threadIdx.x < kWarp) share_queries<T, D, Score>(row.q + first * D, min(launch.group - first, kScoreHeads), exact + slot);
      Team::sync();
    }
    scorer.score_pages(candidates.physical, taken, min(launch.group - first, kScoreHeads), [&](int32_t i, float of_page) {
      const uint32_t key = ordered_key(of_page);
      candidates.keys[i] = first == 0 ? key : join_keys(key, candidates.keys[i]);
    });
  }
  if (threadIdx.x == 0) {
    add_to_counter(p.cache.counters->pages_scored, taken);
    if (row.coarse) add_to_counter(p.cache.counters->copies_scored, row.pages);
  }
  Team::sync();
  auto key = [&](int32_t i) { return candidates.keys[i]; };
  Keys<kCandidateItems, decltype(key), Team> held(key, taken);
  const Cut cut = find_cut(held, row.forced.best, shared);
  write_taken(held, cut, [&](int32_t i) { return candidates.logical[i]; }, out + row.forced.first, shared);
}

template <typename T, int D, Kind Score>
__global__ void __launch_bounds__(Roles<D>::kThreads, 1) coarse_kernel(const __grid_constant__ CoarseLaunch launch) {
  extern __shared__ __align__(kLineBytes) uint4 memory[]; /* CoarseShared, rings, keys of rows, candidates of one row, their places and keys */
  CoarseShared<D, Score> &shared = *reinterpret_cast<CoarseShared<D, Score> *>(memory);
  wait_for_previous();
  if (launch.flags.ready != nullptr) let_next_start(); /* not before: attention of the step before takes back what it was waiting for */
  if (blockIdx.x == 0) count_selection(launch.params.select, find_row(launch, 0).pages, true);
  const int64_t most = most_candidates(launch.params.select.k);
  unsigned char *rings = reinterpret_cast<unsigned char *>(&shared + 1);
  uint32_t *buffers = reinterpret_cast<uint32_t *>(rings + launch.stages * Roles<D>::kScoring * Ring<D, Score>::kSlotBytes),
           *lists = buffers + launch.buffers * launch.buffer_words;
  const int warp = threadIdx.x / kWarp;
  if (warp == Roles<D>::kChoosing + Roles<D>::kScoring) return prepare_rows<T, D, Score>(launch, shared.exact, shared.prepared);
  if (warp >= Roles<D>::kChoosing) return score_rows<D, Score>(launch, buffers, rings, shared.prepared);
  const Candidates candidates = candidates_at(lists, most);
  for (int buffer = 0; buffer < launch.buffers; buffer++) barrier_arrive<Roles<D>::kThreads>(kEmptied + buffer);
  int turn = 0;
  for (int32_t at = blockIdx.x; at < launch.rows; at += gridDim.x) {
    choose_row<T, D, Score>(launch, at, turn, buffers, candidates, shared.select, shared.exact);
    if (launch.flags.ready == nullptr) continue;
    Roles<D>::Team::sync();
    if (threadIdx.x == 0) announce(launch.flags, at);
  }
}

template <typename T, int D, Kind Score>
bool launch_coarse(Backend &backend, CoarseLaunch params) {
  params.buffer_words = Roles<D>::Keys::key_place(static_cast<int32_t>(params.params.score.sequences.max_pages) + 4) / 4 * 4;
  int64_t bytes = 0;
  for (const auto &[buffers, stages] : {std::pair{kMostBuffers, kMostStages}, {1, kMostStages}, {1, kFewestStages}}) {
    params.buffers = buffers, params.stages = stages;
    bytes = int64_t(sizeof(CoarseShared<D, Score>)) + int64_t(stages) * Roles<D>::kScoring * Ring<D, Score>::kSlotBytes +
            (int64_t(buffers) * params.buffer_words + 3 * most_candidates(params.params.select.k)) * int64_t(sizeof(uint32_t));
    if (bytes <= backend.shared_bytes) break;
  }
  if (bytes > backend.shared_bytes) return false;
  if (params.flags.ready) leave_no_cache("Could not launch page_choose", coarse_kernel<T, D, Score>);
  const unsigned blocks = static_cast<unsigned>(std::min(params.rows, backend.multiprocessors));
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

bool coarse_choose(Backend &backend, const PageChooseParams &params, RowFlags flags) {
  const PageScoreParams &p = params.score;
  const int64_t rows = p.sequences.sequences * p.cache.desc.num_kv_heads, k = params.select.k;
  if (p.cache.coarse == nullptr || p.scorer == PS_QUEST || !has_fast_score(p.cache.desc)) return false;
  if (most_candidates(k) > kMostCandidates || p.sequences.max_pages < 2 * most_candidates(k)) return false;
  if (4 * rows < backend.multiprocessors) return false; /* a block per row would leave too much of the device idle */
  const ps_cache_desc &desc = p.cache.desc;
  CoarseLaunch launch_params{};
  launch_params.params = params;
  launch_params.bad_index = backend.bad_index;
  launch_params.first_row = p.layer * int64_t(desc.num_kv_heads) * desc.num_pages;
  launch_params.rows = static_cast<int32_t>(rows);
  launch_params.heads = desc.num_kv_heads;
  launch_params.group = desc.num_query_heads / desc.num_kv_heads;
  launch_params.flags = flags;
  return p.cache.desc.dtype == PS_F16 ? launch_kind<f16>(backend, launch_params) : launch_kind<bf16>(backend, launch_params);
}

}  // namespace ps
