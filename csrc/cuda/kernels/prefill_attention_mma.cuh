/* Prefill attention with the tensor instructions of every GPU since compute capability 8.0 (mma.sync m16n8k16): pages of 16-bit numbers,
 * heads of 64, 96, 128 or 256.
 *
 * Four warps, each with 16 or 32 query rows whose results stay in registers. Key and value tiles come in two stages by cp.async, chunk by
 * chunk as they lie in the pages: that is the swizzle that ldmatrix expects. */
#pragma once

#include "prefill_attention_tile.cuh"

namespace ps {
namespace prefill {

constexpr int kMmaThreads = 128;

/* Shared memory, in numbers of 16 bits. */
template <int D>
struct MmaPlan {
  static constexpr int kTokens = D == 64 ? 64 : 32;     /* of a key or value tile */
  static constexpr int kRowTiles = D <= 128 ? 2 : 1;    /* of 16 rows, a warp */
  static constexpr int kRows = kMmaThreads / kWarp * kRowTiles * 16;
  static constexpr int kTile = kTokens * D;
  static constexpr int kStages = kRows * D;             /* queries come first */
  static constexpr int kBytes = (kStages + 4 * kTile) * 2; /* two stages of keys and values */
  static_assert(D % block_width(D) == 0 && block_width(D) >= 32, "Chunks of 16 bytes must lie without bank conflicts.");
  static_assert(kBytes <= 99 * 1024, "Some GPUs have no more shared memory for a block.");
};

/* Four 8 x 8 matrices; each lane names one row of 16 bytes. */
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

/* d[16, 8] += a[16, 16] b[16, 8] */
template <typename T>
__device__ __forceinline__ void multiply(float *d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same<T, bf16>::value) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/* 16 bytes from global to shared memory in the background, or zeros. */
__device__ __forceinline__ void copy_chunk(const void *shared, const void *global, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(global),
               "r"(present ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/* Begins copying the keys and values of positions [first, first + kTokens) into blocks [D / W][kTokens][W]. Rows from tile.end on become
 * zero: a reused page may contain NaN there. */
template <typename T, int D>
__device__ __forceinline__ void begin_tile(const Args &args, const QueryTile &tile, int32_t first, T *keys, T *values) {
  constexpr int W = block_width(D), kChunks = W / 8, kTokens = MmaPlan<D>::kTokens;
  const Layout layout(args.p.cache.desc);
  const int page_size = args.p.cache.desc.page_size;
#pragma unroll 2
  for (int i = threadIdx.x; i < kTokens * (D / 8); i += kMmaThreads) {
    const int chunk = i % kChunks, row = i / kChunks % kTokens, block = i / (kChunks * kTokens), position = first + row;
    const bool present = position < tile.end;
    const int64_t page = present ? layout.tokens(args.p.layer, tile.head, physical_page(args, tile, position / page_size)) : 0;
    const int64_t from = page + (block * page_size + position % page_size) * W + chunk * 8;
    copy_chunk(keys + i * 8, static_cast<const T *>(args.p.cache.keys) + (present ? from : 0), present);
    copy_chunk(values + i * 8, static_cast<const T *>(args.p.cache.values) + (present ? from : 0), present);
  }
}

/* scores = queries x keys of the tile, for the row tiles of a warp that start at `first_row` */
template <typename T, int D>
__device__ __forceinline__ void multiply_keys(float (&scores)[MmaPlan<D>::kRowTiles][MmaPlan<D>::kTokens / 2], const T *queries, const T *keys,
                                              int first_row, int lane) {
  using Plan = MmaPlan<D>;
  constexpr int W = block_width(D);
#pragma unroll
  for (int r = 0; r < Plan::kRowTiles; r++) {
#pragma unroll
    for (int i = 0; i < Plan::kTokens / 2; i++) scores[r][i] = 0.f;
  }
#pragma unroll
  for (int dim = 0; dim < D; dim += 16) {
    uint32_t a[Plan::kRowTiles][4];
    const T *query_block = queries + dim / W * Plan::kRows * W, *key_block = keys + dim / W * Plan::kTokens * W;
#pragma unroll
    for (int r = 0; r < Plan::kRowTiles; r++) {
      load_matrices(a[r], query_block + swizzled(W, first_row + r * 16 + lane % 16, dim % W + lane / 16 * 8));
    }
#pragma unroll
    for (int token = 0; token < Plan::kTokens; token += 16) {
      uint32_t b[4];
      load_matrices(b, key_block + swizzled(W, token + lane / 16 * 8 + lane % 8, dim % W + lane / 8 % 2 * 8));
#pragma unroll
      for (int r = 0; r < Plan::kRowTiles; r++) {
        multiply<T>(&scores[r][token / 2], a[r], b[0], b[1]);
        multiply<T>(&scores[r][token / 2 + 4], a[r], b[2], b[3]);
      }
    }
  }
}

/* out += weights x values of the tile */
template <typename T, int D>
__device__ __forceinline__ void multiply_values(float (&out)[MmaPlan<D>::kRowTiles][D / 2],
                                                const float (&weights)[MmaPlan<D>::kRowTiles][MmaPlan<D>::kTokens / 2], const T *values, int lane) {
  using Plan = MmaPlan<D>;
  constexpr int W = block_width(D);
#pragma unroll
  for (int token = 0; token < Plan::kTokens; token += 16) {
    uint32_t a[Plan::kRowTiles][4];
#pragma unroll
    for (int r = 0; r < Plan::kRowTiles; r++) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[r][i] = pack<T>(weights[r][token / 2 + 2 * i], weights[r][token / 2 + 2 * i + 1]);
    }
#pragma unroll
    for (int dim = 0; dim < D; dim += 16) {
      uint32_t b[4];
      load_matrices_transposed(b, values + dim / W * Plan::kTokens * W + swizzled(W, token + lane % 16, dim % W + lane / 16 * 8));
#pragma unroll
      for (int r = 0; r < Plan::kRowTiles; r++) {
        multiply<T>(&out[r][dim / 2], a[r], b[0], b[1]);
        multiply<T>(&out[r][dim / 2 + 4], a[r], b[2], b[3]);
      }
    }
  }
}

/* Grid: tiles x KV heads (query_tile). Shared memory: MmaPlan<D>::kBytes. */
template <typename T, int D>
__global__ void __launch_bounds__(kMmaThreads) prefill_attention_mma(const __grid_constant__ Args args) {
  using Plan = MmaPlan<D>;
  constexpr int N = Plan::kTokens;
  extern __shared__ __align__(1024) unsigned char dynamic_shared[];
  T *queries = reinterpret_cast<T *>(dynamic_shared), *stages = queries + Plan::kStages;
  let_next_start();
  wait_for_previous();

  const QueryTile tile = query_tile(args, Plan::kRows);
  if (tile.rows <= 0) return;
  const int32_t first_token = tile.oldest / N * N;
  const int tiles = (tile.end - first_token + N - 1) / N;
  const int lane = threadIdx.x % kWarp, first_row = threadIdx.x / kWarp * Plan::kRowTiles * 16;
  const int32_t earliest = tile.position(first_row), seen_by_all = tile.begin(tile.position(first_row + Plan::kRowTiles * 16 - 1));

  begin_tile<T, D>(args, tile, first_token, stages, stages + Plan::kTile);
  commit_copies();
  load_query_rows<T, D, Plan::kRows, Plan::kRows>(args, tile, queries, 0, threadIdx.x);

  float out[Plan::kRowTiles][D / 2] = {}, scores[Plan::kRowTiles][N / 2];
  Softmax softmax[Plan::kRowTiles];
  for (int i = 0; i < tiles; i++) {
    const int32_t start = first_token + i * N;
    T *keys = stages + i % 2 * 2 * Plan::kTile, *next = stages + (i + 1) % 2 * 2 * Plan::kTile;
    if (i + 1 < tiles) begin_tile<T, D>(args, tile, start + N, next, next + Plan::kTile);
    commit_copies();
    wait_copies<1>();
    __syncthreads();

    multiply_keys<T, D>(scores, queries, keys, first_row, lane);
    const bool all_seen = start + N - 1 <= earliest && start >= seen_by_all;
#pragma unroll
    for (int r = 0; r < Plan::kRowTiles; r++) {
      if (!all_seen) {
        const int row = first_row + r * 16 + lane / 4;
        const Sight rows[2] = {sight(tile, tile.position(row), start), sight(tile, tile.position(row + 8), start)};
        hide<N>(scores[r], rows, lane);
      }
      softmax[r].template weigh<N>(scores[r]);
#pragma unroll
      for (int k = 0; k < D / 2; k++) out[r][k] *= softmax[r].factor[k / 2 % 2];
    }
    multiply_values<T, D>(out, scores, keys + Plan::kTile, lane);
    __syncthreads();
  }

#pragma unroll
  for (int half = 0; half < Plan::kRowTiles * 2; half++) {
    const int row = first_row + half * 8 + lane / 4;
    const float factor = 1.f / softmax[half / 2].row_total(half % 2);
    if (row < tile.rows) store_row<D>(out[half / 2], half % 2, out_row(args, tile, row), factor, lane, args.vectors);
  }
}

}  // namespace prefill
}  // namespace ps
