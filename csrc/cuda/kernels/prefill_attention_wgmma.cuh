/* Prefill attention for compute capability 9.0: pages of 16-bit numbers, heads of 64, 128 or 256.
 *
 * A block has 128 query rows. Warp group 0 fetches: two warps copy keys and two values, which are already stored in the pages as wgmma expects
 * them, into rings of tiles; a lane copies one page and block of 64 dimensions a tile. Warp groups 1 and 2 compute with 64 rows
 * each. While the tensor cores multiply scores of tile i and values of tile i - 1, the softmax of a tile runs: within a group, because
 * the value product is waited for after the softmax; and across groups, because they take turns at issuing products. */
#pragma once

#include "prefill_attention_tile.cuh"
#include "wgmma.cuh"

namespace ps {
namespace prefill {

constexpr int kGroupThreads = 128; /* of a warp group */
constexpr int kGroupRows = 64;
constexpr int kComputeGroups = 2;
constexpr int kFetchWarps = 2; /* of each ring; a warp issues its lanes' copies one after the other */
constexpr int kWgmmaThreads = (1 + kComputeGroups) * kGroupThreads;
constexpr int kWgmmaRows = kComputeGroups * kGroupRows;

/* Registers a thread; 65,536 a multiprocessor. */
constexpr int kFetchRegisters = 40, kComputeRegisters = 232;
static_assert((kFetchRegisters + kComputeGroups * kComputeRegisters) * kGroupThreads <= 65536, "More registers than there are.");
static_assert(2 * kFetchWarps * kWarp == kGroupThreads, "Two rings share the warps of the fetching group.");

/* Numbers of the hardware barriers, to which the compute group is added. */
enum NamedBarrier : int { kTurn = 1, kQueriesReady = 3 };

/* Shared memory in bytes from its start, which is a multiple of 1024. */
template <int D>
struct WgmmaPlan {
  static constexpr int kTokens = D <= 128 ? 128 : 64; /* of a key or value tile */
  static constexpr int kStages = D <= 128 ? 3 : 2;
  static constexpr int kBlocks = D / 64;
  static constexpr int kBlockBytes = kTokens * 128; /* of a tile's 64 dimensions */
  static constexpr int kTileBytes = kBlocks * kBlockBytes;
  static constexpr int kKeys = kWgmmaRows * D * 2; /* queries come first */
  static constexpr int kValues = kKeys + kStages * kTileBytes;
  static constexpr int kBarriers = kValues + kStages * kTileBytes;
  static constexpr int kBytes = kBarriers + 4 * kStages * 8 + 1024; /* the last 1024 for alignment */
  static_assert(D % 64 == 0, "Tiles are made of blocks of 64 dimensions.");
  static_assert(kTokens / 8 * kBlocks <= kFetchWarps * kWarp, "Each lane copies at most one piece of a tile.");
  static_assert(kBytes <= 227 * 1024, "More shared memory than a block can have.");
  static_assert(kTokens % 64 == 0, "Tiles hold whole pages of every size.");
};

#if defined(PS_HAS_WGMMA)

/* A ring of tiles in shared memory, by address. Tile i lies in stage i % kStages. */
template <int D>
struct Ring {
  using Plan = WgmmaPlan<D>;
  uint32_t tiles, barriers; /* barriers: of each stage full, then of each stage empty */
  __device__ uint32_t tile(int i) const { return tiles + i % Plan::kStages * Plan::kTileBytes; }
  __device__ uint32_t full(int i) const { return barriers + i % Plan::kStages * 8; }
  __device__ uint32_t empty(int i) const { return barriers + (Plan::kStages + i % Plan::kStages) * 8; }
  __device__ void wait_full(int i) const { wgmma::barrier_wait(full(i), i / Plan::kStages & 1); }
  __device__ void wait_empty(int i) const { wgmma::barrier_wait(empty(i), (i / Plan::kStages & 1) ^ 1); } /* at once in the first round */
  /* A warp is done with a tile. */
  __device__ void release(int i) const {
    if (threadIdx.x % kWarp == 0) wgmma::barrier_arrive(empty(i));
  }
  __device__ void init() const {
    for (int i = 0; i < Plan::kStages; i++) {
      wgmma::barrier_init(full(i), kFetchWarps);
      wgmma::barrier_init(empty(i), kComputeGroups * kGroupThreads / kWarp);
    }
  }
};

/* ---- fetching ---- */

/* One warp's share of a ring: keys or values of the positions [first_token, tile.end). */
template <int D>
struct Fetcher {
  using Plan = WgmmaPlan<D>;
  const Args &args;
  const QueryTile &tile;
  int32_t first_token;
  int share, lane; /* share: which of the ring's warps */

  /* The piece of a tile that this lane copies: a page and a block of dimensions. */
  __device__ int piece() const { return lane * kFetchWarps + share; }
  __device__ int page() const { return piece() / Plan::kBlocks; }
  __device__ int block() const { return piece() % Plan::kBlocks; }
  /* Tokens of tile i, and how many of them this lane copies. */
  __device__ int present(int i) const { return min(Plan::kTokens, tile.end - first_token - i * Plan::kTokens); }
  __device__ int rows(int i) const {
    const int size = args.p.cache.desc.page_size;
    return max(0, min(size, present(i) - page() * size));
  }

  /* Sets this warp's part of the tile's missing rows to zero. */
  __device__ void clear_rows(uint32_t tile_address, int present) const {
    const int bytes = (Plan::kTokens - present) * 128;
    for (int b = 0; b < Plan::kBlocks; b++) {
      const uint32_t first = tile_address + b * Plan::kBlockBytes + present * 128;
      for (int byte = (share * kWarp + lane) * 16; byte < bytes; byte += kFetchWarps * kWarp * 16) {
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(first + byte), "r"(0) : "memory");
      }
    }
    wgmma::publish_stores();
  }

  /* Only rows below tile.end are copied: a reused page may contain NaN behind them. Values there must be zero because
   * they are multiplied by weights of zero; keys there may be anything because their scores are replaced. */
  __device__ void run(const Ring<D> &ring, const void *pool, bool clear, int tiles) const {
    const int size = args.p.cache.desc.page_size;
    const Layout layout(args.p.cache.desc);
    for (int i = 0; i < tiles; i++) {
      const int count = rows(i);
      const int32_t physical = count > 0 ? physical_page(args, tile, (first_token + i * Plan::kTokens) / size + page()) : 0;
      const int64_t from = layout.tokens(args.p.layer, tile.head, physical) + block() * size * 64;
      const int bytes = __reduce_add_sync(kAllLanes, count * 128);
      ring.wait_empty(i);
      if (clear && present(i) < Plan::kTokens) clear_rows(ring.tile(i), present(i));
      __syncwarp();
      if (lane == 0) wgmma::barrier_arrive_expecting(ring.full(i), bytes);
      __syncwarp();
      if (count > 0) {
        wgmma::bulk_copy(ring.tile(i) + block() * Plan::kBlockBytes + page() * size * 128, static_cast<const char *>(pool) + from * 2, count * 128,
                         ring.full(i));
      }
    }
  }
};

/* ---- computing ---- */

/* One warp group's share of a block: 64 rows. */
template <typename T, int D>
struct Computer {
  using Plan = WgmmaPlan<D>;
  static constexpr int N = Plan::kTokens;

  uint32_t queries; /* address of the group's rows in the first block of 64 dimensions */
  int group;

  /* scores = queries x keys of the tile, begun */
  __device__ __forceinline__ void begin_scores(float (&scores)[N / 2], uint32_t keys) const {
    wgmma::begin();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
      const uint32_t step = k % 4 * 32; /* 16 numbers */
      wgmma::product_shared<T, N>(scores, wgmma::operand(queries + k / 4 * (kWgmmaRows * 128) + step, 0),
                                  wgmma::operand(keys + k / 4 * Plan::kBlockBytes + step, 0), k > 0);
    }
    wgmma::commit();
  }

  /* out += weights x values of the tile, begun */
  __device__ __forceinline__ void begin_out(float (&out)[D / 2], const uint32_t (&weights)[N / 4], uint32_t values) const {
    wgmma::begin();
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
      wgmma::product_registers<T, D>(out, weights + 4 * k, wgmma::operand(values + k * 16 * 128, Plan::kBlockBytes));
    }
    wgmma::commit();
  }

  /* Rounded to what the value product takes as its left operand: registers of a score pair become one. */
  static __device__ __forceinline__ void round_weights(uint32_t (&weights)[N / 4], const float (&scores)[N / 2]) {
#pragma unroll
    for (int i = 0; i < N / 4; i++) weights[i] = pack<T>(scores[2 * i], scores[2 * i + 1]);
  }

  __device__ __forceinline__ void wait_turn() const { wgmma::named_wait(kTurn + group, kComputeGroups * kGroupThreads); }
  __device__ __forceinline__ void pass_turn() const { wgmma::named_arrive(kTurn + 1 - group, kComputeGroups * kGroupThreads); }

  __device__ __forceinline__ void run(const Args &args, const QueryTile &tile, const Ring<D> &keys, const Ring<D> &values, int32_t first_token,
                                      int tiles) const {
    const int lane = threadIdx.x % kWarp, first_row = group * kGroupRows;
    const int row = first_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4; /* and row + 8 */
    const int32_t positions[2] = {tile.position(row), tile.position(row + 8)};
    const int32_t earliest = tile.position(first_row), seen_by_all = tile.begin(tile.position(first_row + kGroupRows - 1));
    const auto hide_tile = [&](float (&scores)[N / 2], int i) {
      const int32_t start = first_token + i * N;
      if (start + N - 1 <= earliest && start >= seen_by_all) return;
      const Sight rows[2] = {sight(tile, positions[0], start), sight(tile, positions[1], start)};
      hide<N>(scores, rows, lane);
    };

    float scores[N / 2], out[D / 2] = {};
    uint32_t weights[N / 4];
    Softmax softmax;

    if (group == 1 && tiles > 1) pass_turn(); /* group 0 begins */
    keys.wait_full(0);
    begin_scores(scores, keys.tile(0));
    wgmma::wait<0>();
    wgmma::pin(scores);
    keys.release(0);
    hide_tile(scores, 0);
    softmax.weigh<N>(scores);
    round_weights(weights, scores);

    if (tiles > 1) keys.wait_full(1);
    for (int i = 1; i < tiles; i++) {
      wait_turn();
      wgmma::pin(scores);
      wgmma::pin(out);
      begin_scores(scores, keys.tile(i));
      values.wait_full(i - 1);
      begin_out(out, weights, values.tile(i - 1));
      if (group == 0 || i + 1 < tiles) pass_turn(); /* nobody waits for the last turn of group 1 */
      wgmma::wait<1>();
      wgmma::pin(scores);
      keys.release(i);
      hide_tile(scores, i);
      softmax.weigh<N>(scores);
      wgmma::pin(scores);
      /* A loop between softmax and wait: inside one basic block the compiler would let the softmax come last. */
      if (i + 1 < tiles) keys.wait_full(i + 1);
      wgmma::wait<0>();
      wgmma::pin(out);
      values.release(i - 1);
      round_weights(weights, scores);
#pragma unroll
      for (int k = 0; k < D / 2; k++) out[k] *= softmax.factor[k / 2 % 2];
    }

    values.wait_full(tiles - 1);
    wgmma::pin(out);
    begin_out(out, weights, values.tile(tiles - 1));
    wgmma::wait<0>();
    wgmma::pin(out);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float factor = 1.f / softmax.row_total(r);
      if (row + 8 * r < tile.rows) store_row<D>(out, r, out_row(args, tile, row + 8 * r), factor, lane, args.vectors);
    }
  }
};

#endif

/* Grid: tiles x KV heads (query_tile). Shared memory: WgmmaPlan<D>::kBytes. */
template <typename T, int D>
__global__ void __launch_bounds__(kWgmmaThreads, 1) prefill_attention_wgmma(const __grid_constant__ Args args) {
#if defined(PS_HAS_WGMMA)
  using Plan = WgmmaPlan<D>;
  extern __shared__ unsigned char dynamic_shared[];
  const uint32_t given = static_cast<uint32_t>(__cvta_generic_to_shared(dynamic_shared)), base = (given + 1023) & ~1023u;
  const Ring<D> keys{base + Plan::kKeys, base + Plan::kBarriers};
  const Ring<D> values{base + Plan::kValues, base + Plan::kBarriers + 2 * Plan::kStages * 8};

  let_next_start();
  if (threadIdx.x == 0) {
    keys.init();
    values.init();
    wgmma::barrier_publish();
  }
  __syncthreads();
  wait_for_previous();
  const QueryTile tile = query_tile(args, kWgmmaRows);
  if (tile.rows <= 0) return;
  const int32_t first_token = tile.oldest / Plan::kTokens * Plan::kTokens;
  const int tiles = (tile.end - first_token + Plan::kTokens - 1) / Plan::kTokens;

  /* Read from one lane, so that the compiler knows that no warp diverges on it: only then do products run asynchronously. */
  const int warp_group = __shfl_sync(kAllLanes, threadIdx.x / kGroupThreads, 0);

  if (warp_group == 0) {
    wgmma::shrink_registers<kFetchRegisters>();
    const int warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);
    const Fetcher<D> fetcher{args, tile, first_token, warp % kFetchWarps, static_cast<int>(threadIdx.x % kWarp)};
    if (warp < kFetchWarps) fetcher.run(keys, args.p.cache.keys, false, tiles);
    else fetcher.run(values, args.p.cache.values, true, tiles);
  } else {
    wgmma::grow_registers<kComputeRegisters>();
    const int group = warp_group - 1;
    T *queries = reinterpret_cast<T *>(dynamic_shared + (base - given));
    load_query_rows<T, D, kWgmmaRows, kGroupRows>(args, tile, queries, group * kGroupRows, threadIdx.x % kGroupThreads);
    wgmma::publish_stores();
    wgmma::named_wait(kQueriesReady + group, kGroupThreads);
    Computer<T, D>{base + group * kGroupRows * 128, group}.run(args, tile, keys, values, first_token, tiles);
  }
#endif
}

}  // namespace prefill
}  // namespace ps
