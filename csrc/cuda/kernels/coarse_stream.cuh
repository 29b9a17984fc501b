/* Coarse copies on their way to shared memory: every scoring warp has a ring of its own, which runs on from row to row. */
#pragma once

#include "coarse_choose.h"
#include "coarse_score.cuh"
#include "select.cuh"
#include "wgmma.cuh"

namespace ps {

/* Pages that are scored again, per page that is wanted: all that matter are among them on the keys of real models (docs/notes/statistics.md).
 * Up to k more are taken where the cut is found sooner. */
constexpr int kCandidates = 2;

PS_HOST_DEVICE constexpr int64_t most_candidates(int64_t k) { return (kCandidates + 1) * k; }

/* Tells the blocks of another launch that a row is done. Called by one thread, after a barrier. */
__device__ __forceinline__ void announce(const RowFlags &flags, int64_t row) {
  __threadfence();
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(__cvta_generic_to_global(flags.ready + row)), "r"(flags.readers) : "memory");
}

constexpr int kMostStages = 3, kFewestStages = 2; /* tiles in a ring */

struct CoarseLaunch {
  PageChooseParams params;
  BadIndex *bad_index;
  int64_t first_row;             /* of statistics of the layer */
  int32_t rows, heads, group;    /* rows; KV heads; query heads of each */
  int32_t buffers, buffer_words; /* rows of keys */
  int32_t stages;                /* tiles in a ring */
  RowFlags flags;
};

/* A row (sequence and KV head), as all roles see it. */
struct CoarseRow {
  int64_t statistics; /* of its first page */
  const int32_t *table;
  const float *q;
  int32_t pages, all; /* pages of the row; those that can be chosen, from forced.first on */
  Forced forced;
  bool coarse; /* so many that they are scored by the copies first */
};

__device__ __forceinline__ CoarseRow find_row(const CoarseLaunch &launch, int32_t row) {
  const PageSelectParams &p = launch.params.select;
  const PageScoreParams &score = launch.params.score;
  const ps_cache_desc &desc = p.cache.desc;
  CoarseRow out;
  const int32_t sequence = row / launch.heads, head = row - sequence * launch.heads;
  out.statistics = launch.first_row + head * desc.num_pages;
  out.table = score.sequences.page_table + sequence * score.sequences.table_stride;
  out.q = score.q.row(sequence) + head * launch.group * desc.head_dim;
  const int32_t length = checked_length(launch.bad_index, p.sequences, sequence, desc.page_size);
  out.pages = (length + desc.page_size - 1) / desc.page_size;
  out.forced = forced_pages(p.k, p.sink_pages, p.recent_pages);
  out.all = out.pages - out.forced.first - out.forced.last;
  out.coarse = out.pages > p.k && out.forced.best > 0 && out.all > most_candidates(p.k);
  return out;
}

/* A scoring warp's ring of tiles in shared memory, in the order in which it scores them: every Warps-th tile of a row, once for every kScoreHeads
 * heads, then of the next row. Tiles begin at multiples of kCoarseTile pages. The page table is read one tile before copies are requested. */
template <int D, Kind Score, int Warps>
struct CoarseRing {
  using Tile = CoarseTile<D, Score>;
  static constexpr int kSlotBytes = (Tile::kBytes + 16 + kLineBytes - 1) / kLineBytes * kLineBytes; /* with a barrier for bulk copies */

  const CoarseLaunch &launch;
  const uint32_t begin, end;              /* shared addresses */
  uint32_t here, ahead;                   /* slots: that is scored next; that is free */
  uint32_t parity;                        /* of the barriers that are waited for */
  int32_t at, page, first_page, pages,
      passes; /* row; this lane's page of the next tile; of a row's first; pages of the row; times that it is still read */
  const int32_t *table;
  const uint8_t *copies;                  /* of physical page 0 */
  const uint32_t *scales;                 /* this lane's of it, or std */
  int32_t entry;                          /* what the table has for this lane's page of the tile that is requested next */
  bool has_next;

  __device__ __forceinline__ CoarseRing(const CoarseLaunch &launch, const unsigned char *shared, int warp)
      : launch(launch),
        begin(shared_address(shared) + warp * launch.stages * kSlotBytes),
        end(begin + launch.stages * kSlotBytes),
        here(begin),
        ahead(begin),
        parity(0) {
    const int lane = threadIdx.x % kWarp;
    at = static_cast<int32_t>(blockIdx.x) - static_cast<int32_t>(gridDim.x);
    first_page = warp * kCoarseTile + lane % kCoarseTile;
    page = first_page;
    pages = 0;
    passes = 1;
#ifdef PS_HAS_WGMMA
    if (lane < launch.stages) wgmma::barrier_init(begin + lane * kSlotBytes + Tile::kBytes, 1);
    wgmma::barrier_publish();
    __syncwarp();
#endif
    look_up();
    for (int stage = 0; stage < launch.stages - 1; stage++) request();
  }

  __device__ __forceinline__ uint32_t row_bytes() const {
    return Tile::kDiag ? Tile::kRowBytes : coarse_row_bytes(D, launch.params.score.cache.variance != nullptr);
  }

  /* Goes to the first row that has another tile for this warp; false after the last. */
  __device__ __forceinline__ bool find_row_with_tile() {
    const int lane = threadIdx.x % kWarp;
    do {
      page = first_page;
      if (--passes > 0) continue;
      at += gridDim.x;
      if (at >= launch.rows) return false;
      const CoarseRow row = find_row(launch, at);
      table = row.table;
      pages = row.coarse ? row.pages : 0;
      passes = (launch.group + kScoreHeads - 1) / kScoreHeads;
      const CacheView &cache = launch.params.score.cache;
      const int64_t rows = row.statistics;
      copies = cache.coarse + rows * row_bytes();
      scales = (Tile::kDiag || lane < kCoarseTile ? cache.coarse_scale : reinterpret_cast<const uint32_t *>(cache.std)) + rows;
    } while (page - lane % kCoarseTile >= pages);
    return true;
  }

  __device__ __forceinline__ void look_up() {
    if (page - static_cast<int32_t>(threadIdx.x % kCoarseTile) >= pages) {
      has_next = at < launch.rows && find_row_with_tile();
      if (!has_next) return;
    }
    entry = __ldg(table + min(page, pages - 1));
    page += Warps * kCoarseTile;
  }

  /* The entry, or 0 with a note when it is out of range. */
  __device__ __forceinline__ uint32_t physical() const {
    const int64_t num_pages = launch.params.score.cache.desc.num_pages;
    if (static_cast<uint32_t>(entry) < static_cast<uint64_t>(num_pages)) return entry;
    const int64_t place = table - launch.params.score.sequences.page_table + min(page - Warps * kCoarseTile, pages - 1);
    return checked_index(launch.bad_index, kPageTable, place, entry, num_pages);
  }

  /* Requests the next tile, if there is one, to the free slot. */
  __device__ __forceinline__ void request() {
    if (has_next) {
      const int lane = threadIdx.x % kWarp;
      const uint32_t own = physical();
      if (!Tile::kDiag || lane < kCoarseTile) copy_number_async(ahead + Tile::kScales + 4 * lane, scales + own);
#ifdef PS_HAS_WGMMA
      /* pages that lie side by side arrive together */
      const uint32_t barrier = ahead + Tile::kBytes;
      if (lane == 0) wgmma::barrier_arrive_expecting(barrier, kCoarseTile * Tile::kRowBytes);
      __syncwarp();
      const bool side_by_side = own - lane % kHalfTile == __shfl_sync(kAllLanes, own, lane & ~(kHalfTile - 1)) && row_bytes() == Tile::kRowBytes;
      const int together = __all_sync(kAllLanes, side_by_side) ? kHalfTile : 1;
      if (lane < kCoarseTile && lane % together == 0) {
        wgmma::bulk_copy(ahead + lane * Tile::kRowBytes, copies + uint64_t(own) * row_bytes(), together * Tile::kRowBytes, barrier);
      }
#else
      constexpr int kChunks = Tile::kRowBytes / 16, kAllChunks = kCoarseTile * kChunks;
#pragma unroll
      for (int first = 0; first < kAllChunks; first += kWarp) {
        const int chunk = first + lane, row = chunk / kChunks;
        const uint32_t of_chunk = __shfl_sync(kAllLanes, own, row % kCoarseTile);
        if (kAllChunks % kWarp == 0 || chunk < kAllChunks) {
          copy_async(ahead + 16 * chunk, copies + uint64_t(of_chunk) * row_bytes() + (chunk - row * kChunks) * 16, true);
        }
      }
#endif
    }
    copy_commit();
    ahead = ahead + kSlotBytes == end ? begin : ahead + kSlotBytes;
    look_up();
  }

  /* Waits for the next tile, requests another, and returns the shared address of the tile; it stays until the next call. */
  __device__ __forceinline__ uint32_t next() {
    if (launch.stages > kFewestStages) copy_wait<kMostStages - 2>();
    else copy_wait<kFewestStages - 2>();
#ifdef PS_HAS_WGMMA
    wgmma::barrier_wait(here + Tile::kBytes, parity);
#endif
    __syncwarp();
    request();
    const uint32_t tile = here;
    here += kSlotBytes;
    if (here == end) here = begin, parity ^= 1;
    return tile;
  }
};

}  // namespace ps
