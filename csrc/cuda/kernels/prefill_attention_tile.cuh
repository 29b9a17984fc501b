/* What one block of a prefill attention kernel works on: a KV head and a run of query rows.
 *
 * Rows count (token, query head of the group), tokens outermost, so that all query heads of a KV head share what is read of the
 * cache and a chunk of few tokens still fills a tile. */
#pragma once

#include <type_traits>

#include "../common.cuh"
#include "../layout.cuh"

namespace ps {
namespace prefill {

constexpr float kMinusInfinity = -__builtin_huge_valf();
constexpr float kLog2E = 1.4426950408889634f;

/* What every kernel is given. */
struct Args {
  PrefillAttentionParams p;
  BadIndex *bad_index;
  int64_t tiles;     /* a KV head */
  int32_t together;  /* KV heads whose tiles run side by side, so that their keys and values stay in the L2 cache */
  bool vectors;      /* every row of q and out starts at a multiple of 16 bytes */
  int32_t parts;     /* blocks of a prompt's tile and KV head, where tiles have chosen pages */
};

struct QueryTile {
  int32_t head, group;
  int32_t rows;              /* of the tile, at most what the kernel takes */
  int32_t last_row;          /* of the chunk */
  int32_t first_row;         /* of the tile, in the chunk */
  int32_t oldest, end;       /* positions [oldest, end) are seen by at least one row */
  int32_t start, window;
  const int32_t *selected;   /* where the tile has chosen pages: they and the tile's own are the pages of a shorter sequence, */
  int32_t count;             /* in which the tile stands at the end, and positions count in that sequence */
  int32_t own;               /* logical page that follows the chosen ones */

  /* A row past the last one counts as the last one; its result is not stored. */
  __device__ int32_t token(int32_t row) const { return min(first_row + row, last_row) / group; }
  __device__ int32_t position(int32_t row) const { return start + token(row); }
  __device__ int32_t query_head(int32_t row) const { return head * group + min(first_row + row, last_row) % group; }
  /* First position that a token sees. */
  __device__ int32_t begin(int32_t position) const { return window > 0 ? max(position - window + 1, 0) : 0; }
};

/* Limits a block's tile to one tile of the prompt, and turns its positions into those among the chosen pages and its own. `index` counts
 * blocks of a KV head, of which each tile of the prompt has the same number. */
__device__ __forceinline__ void choose_rows(const Args &args, QueryTile &tile, int32_t index, int32_t tile_rows) {
  const PrefillAttentionParams &p = args.p;
  const int32_t page_size = p.cache.desc.page_size, part = index % args.parts;
  const int64_t prompt_tile = index / args.parts, row = prompt_tile * p.cache.desc.num_kv_heads + tile.head;
  const PrefillTiles tiles = p.tiles();
  const int32_t first = static_cast<int32_t>(tiles.first(prompt_tile)), end = static_cast<int32_t>(tiles.end(prompt_tile));
  tile.first_row = first * tile.group + part * tile_rows;
  tile.last_row = end * tile.group - 1;
  tile.own = (tile.start + first) / page_size;
  tile.selected = p.selected + row * p.k;
  tile.count = p.counts[row];
  if (tile.count < 0 || tile.count > p.k) {
    note_bad_index(args.bad_index, kCounts, row, tile.count, p.k);
    tile.count = 0;
  }
  if (part == 0 && threadIdx.x == 0) {
    const int32_t visible = (tile.start + end + page_size - 1) / page_size;
    add_to_counter(p.cache.counters->prompt_pages_attended, tile.count + visible - tile.own);
    add_to_counter(p.cache.counters->prompt_pages_visible, visible);
  }
  tile.start += (tile.count - tile.own) * page_size;
}

/* The tile of a block. Heads run in sections of `together`; inside a section the latest tokens, which see most, come first. A tile with
 * chosen pages may have no rows. */
__device__ __forceinline__ QueryTile query_tile(const Args &args, int32_t tile_rows) {
  const ps_cache_desc &desc = args.p.cache.desc;
  const int64_t section_blocks = args.tiles * args.together, section = blockIdx.x / section_blocks, rest = blockIdx.x % section_blocks;
  const int64_t first_head = section * args.together, heads = min(int64_t(args.together), desc.num_kv_heads - first_head);
  QueryTile tile;
  tile.head = static_cast<int32_t>(first_head + rest % heads);
  tile.group = desc.num_query_heads / desc.num_kv_heads;
  tile.last_row = static_cast<int32_t>(args.p.tokens * tile.group - 1);
  tile.start = static_cast<int32_t>(args.p.start);
  const int32_t index = static_cast<int32_t>(args.tiles - 1 - rest / heads);
  tile.selected = nullptr;
  tile.count = tile.own = 0;
  if (args.p.selected) choose_rows(args, tile, index, tile_rows);
  else tile.first_row = index * tile_rows;
  tile.rows = min(tile_rows, tile.last_row - tile.first_row + 1);
  tile.window = args.p.window;
  tile.oldest = tile.begin(tile.position(0));
  tile.end = tile.position(tile.rows - 1) + 1;
  return tile;
}

__device__ __forceinline__ const float *query_row(const Args &args, const QueryTile &tile, int32_t row) {
  return args.p.q.row(tile.token(row)) + int64_t(tile.query_head(row)) * args.p.cache.desc.head_dim;
}

__device__ __forceinline__ float *out_row(const Args &args, const QueryTile &tile, int32_t row) {
  return args.p.out.row(tile.token(row)) + int64_t(tile.query_head(row)) * args.p.cache.desc.head_dim;
}

/* Physical page of a tile's page. */
__device__ __forceinline__ int32_t physical_page(const Args &args, const QueryTile &tile, int32_t page) {
  int32_t logical = page - tile.count + tile.own;
  if (page < tile.count) {
    logical = checked_index(args.bad_index, kSelected, tile.selected - args.p.selected + page, tile.selected[page], tile.own);
  }
  return checked_page(args.bad_index, args.p.page_table, 0, logical, args.p.cache.desc.num_pages);
}

/* 2^x; 0 for minus infinity, NaN for NaN. */
__device__ __forceinline__ float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

/* Two numbers rounded to the pages' type, the first in the low half. */
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t out;
  if constexpr (std::is_same<T, bf16>::value) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  }
  return out;
}

/* Eight numbers of a row of q, scaled and rounded; a dot product with them is a logarithm to base 2 of an unnormalised weight. */
template <typename T, bool kVectors>
__device__ __forceinline__ uint4 load_queries(const float *q, float factor) {
  alignas(16) float x[8];
  if constexpr (kVectors) {
    *reinterpret_cast<float4 *>(x) = *reinterpret_cast<const float4 *>(q);
    *reinterpret_cast<float4 *>(x + 4) = *reinterpret_cast<const float4 *>(q + 4);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = q[i];
  }
  return make_uint4(pack<T>(x[0] * factor, x[1] * factor), pack<T>(x[2] * factor, x[3] * factor), pack<T>(x[4] * factor, x[5] * factor),
                    pack<T>(x[6] * factor, x[7] * factor));
}

/* Stores rows [first, first + kCount) of a tile's queries into swizzled blocks [D / W][kTileRows][W] of shared memory; 128 threads.
 * Loads do not depend on each other, so that many are under way at once. */
template <typename T, int D, int kTileRows, int kCount, bool kVectors>
__device__ __forceinline__ void load_query_rows(const Args &args, const QueryTile &tile, T *shared, int first, int thread) {
  constexpr int W = block_width(D), kChunks = D / 8, kThreads = 128;
  static_assert(kCount * kChunks % kThreads == 0, "All threads load equally much.");
  const float factor = args.p.scale * kLog2E;
#pragma unroll 8
  for (int i = 0; i < kCount * kChunks / kThreads; i++) {
    const int chunk = i * kThreads + thread, row = first + chunk / kChunks, column = chunk % kChunks * 8;
    *reinterpret_cast<uint4 *>(shared + column / W * kTileRows * W + swizzled(W, row, column % W)) =
        load_queries<T, kVectors>(query_row(args, tile, row) + column, factor);
  }
}

template <typename T, int D, int kTileRows, int kCount>
__device__ __forceinline__ void load_query_rows(const Args &args, const QueryTile &tile, T *shared, int first, int thread) {
  if (args.vectors) load_query_rows<T, D, kTileRows, kCount, true>(args, tile, shared, first, thread);
  else load_query_rows<T, D, kTileRows, kCount, false>(args, tile, shared, first, thread);
}

/* Which columns of a block of keys a row may see: [low, high], as distances from the block's first position. */
struct Sight {
  int32_t low, high;
};

__device__ __forceinline__ Sight sight(const QueryTile &tile, int32_t position, int32_t block_start) {
  return {tile.begin(position) - block_start, position - block_start};
}

/* Running softmax of the rows `lane / 4` and that + 8 of a 16-row product, of which a thread holds columns 8j + lane % 4 * 2 + {0, 1}
 * as numbers 4j + {0, 1} and 4j + {2, 3}. Base 2. */
struct Softmax {
  float maximum[2] = {kMinusInfinity, kMinusInfinity};
  float total[2] = {0.f, 0.f}; /* of this thread's columns */
  float factor[2];             /* by which the latest block rescales what was summed before */

  /* Scores become weights. The two rows go side by side, because each is a chain of dependent instructions. */
  template <int kColumns>
  __device__ __forceinline__ void weigh(float (&scores)[kColumns / 2]) {
    float largest[2] = {maximum[0], maximum[1]}, base[2], sum[2] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < kColumns / 2; i += 2) largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], fmaxf(scores[i], scores[i + 1]));
#pragma unroll
    for (int distance = 1; distance <= 2; distance *= 2) {
#pragma unroll
      for (int r = 0; r < 2; r++) largest[r] = fmaxf(largest[r], __shfl_xor_sync(kAllLanes, largest[r], distance));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      base[r] = largest[r] == kMinusInfinity ? 0.f : largest[r]; /* nothing seen yet: the weights must become 0, not NaN */
      factor[r] = exp2_fast(maximum[r] - base[r]);
      maximum[r] = largest[r];
    }
#pragma unroll
    for (int i = 0; i < kColumns / 2; i += 2) {
      const int r = i / 2 % 2;
      scores[i] = exp2_fast(scores[i] - base[r]);
      scores[i + 1] = exp2_fast(scores[i + 1] - base[r]);
      sum[r] += scores[i] + scores[i + 1];
    }
#pragma unroll
    for (int r = 0; r < 2; r++) total[r] = total[r] * factor[r] + sum[r];
  }

  /* Sums the totals over the four threads of a row and returns what the row's result is divided by. */
  __device__ __forceinline__ float row_total(int r) const {
    float sum = total[r];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    return sum + __shfl_xor_sync(kAllLanes, sum, 2);
  }
};

/* Writes minus infinity where a row may not attend, whatever is there. */
template <int kColumns>
__device__ __forceinline__ void hide(float (&scores)[kColumns / 2], const Sight (&rows)[2], int lane) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int low = rows[r].low - lane % 4 * 2, high = rows[r].high - lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kColumns / 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        if (8 * j + e < low || 8 * j + e > high) scores[4 * j + 2 * r + e] = kMinusInfinity;
      }
    }
  }
}

/* Writes one row's numbers of a 16-row product: columns 8j + lane % 4 * 2 + {0, 1}. */
template <int D>
__device__ __forceinline__ void store_row(const float (&numbers)[D / 2], int r, float *out, float factor, int lane, bool vectors) {
  out += lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < D / 8; j++) {
    const float2 pair = make_float2(numbers[4 * j + 2 * r] * factor, numbers[4 * j + 2 * r + 1] * factor);
    if (vectors) {
      *reinterpret_cast<float2 *>(out + 8 * j) = pair;
    } else {
      out[8 * j] = pair.x;
      out[8 * j + 1] = pair.y;
    }
  }
}

}  // namespace prefill
}  // namespace ps
