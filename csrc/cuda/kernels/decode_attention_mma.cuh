/* Decode attention on tensor cores, for pages of 16-bit numbers.
 *
 * Each warp works alone on tiles of 16 tokens that arrive through its own ring of asynchronous copies, so that nothing waits for
 * the slowest warp. The 16 rows of a product are 8 query heads twice: rows 0 to 7 hold the high parts of the queries (then of the
 * weights), rows 8 to 15 what rounding left of them. A lane holds both parts of the same number and adds them: precision of f32 for
 * no instruction more. */
#pragma once

#include "decode_attention.cuh"
#include "mma.cuh"

namespace ps {

constexpr int kTileTokens = 16;
constexpr int kDecodeWarps = kDecodeThreads / kWarp;

template <int D>
struct DecodeTile {
  static constexpr int kWidth = block_width(D);
  static constexpr int kUnitBytes = 8 * kWidth * 2; /* 8 tokens of a block of dimensions, as they lie in the page */
  static constexpr int kHalfBytes = 8 * D * 2;      /* 8 tokens */
  static constexpr int kMatrixBytes = 2 * kHalfBytes;
  static constexpr int kBytes = 2 * kMatrixBytes; /* keys, then values */
  static constexpr int kStages = D <= 64 ? 4 : D <= 128 ? 3 : 2;
  static constexpr int kWarpBytes = kStages * kBytes;
  static constexpr int kMergeBytes = kDecodeWarps * kRowHeads * (D + 2) * 4 + kRowHeads * (D + 2) * 4;
  static constexpr int kSharedBytes = kDecodeWarps * kWarpBytes > kMergeBytes ? kDecodeWarps * kWarpBytes : kMergeBytes;
  static_assert(D % 32 == 0, "A warp copies units of at least 512 bytes, one chunk a lane");
};

/* 8 tokens of a page: which, and which of them count. */
struct HalfTile {
  int32_t physical, place;   /* first token inside the page */
  int32_t begin, end;        /* tokens of the 8 that count */
};

__device__ __forceinline__ HalfTile locate(const DecodeLaunch &launch, const RowPages &row, int32_t token) {
  const int32_t place = row.begin + (token >> row.page_shift), inside = token & ((1 << row.page_shift) - 1);
  if (place >= row.end) return {0, 0, 0, 0};
  const int32_t logical = logical_page(launch, row, place), start = (logical << row.page_shift) + inside;
  return {physical_page(launch, row, logical), inside, max(row.first_token - start, 0), min(row.length - start, 8)};
}

/* Asks for one tile: both halves of keys and of values. */
template <typename T, int D>
__device__ __forceinline__ void request_tile(const DecodeLaunch &launch, const RowPages &row, const HalfTile (&halves)[2], uint32_t target) {
  using Tile = DecodeTile<D>;
  const CacheView &cache = launch.params.cache;
  const Layout layout(cache.desc);
  const int lane = threadIdx.x % kWarp, block_elements = cache.desc.page_size * Tile::kWidth;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const HalfTile &tile = halves[half];
    const int64_t base = layout.tokens(launch.params.layer, row.head, tile.physical) + tile.place * Tile::kWidth;
#pragma unroll
    for (int i = 0; i < Tile::kHalfBytes / 16 / kWarp; i++) {
      const int chunk = i * kWarp + lane, unit = chunk / (Tile::kUnitBytes / 16), inside = chunk % (Tile::kUnitBytes / 16);
      const int token = inside / (Tile::kWidth / 8);
      const bool valid = token >= tile.begin && token < tile.end;
      const int64_t from = base + unit * block_elements + inside * 8;
      const uint32_t to = target + half * Tile::kHalfBytes + chunk * 16;
      copy_async(to, static_cast<const T *>(cache.keys) + from, valid);
      copy_async(to + Tile::kMatrixBytes, static_cast<const T *>(cache.values) + from, valid);
    }
  }
}

/* The queries as rows of the first product: fragments for every 16 dimensions, normed by a power of two a head so that 16 bits hold them.
 * Returns the factor that turns the product into a score in base 2. */
template <typename T, int D>
__device__ __forceinline__ float load_queries(const DecodeLaunch &launch, const RowPages &row, uint32_t (&q)[D / 16][4]) {
  const DecodeAttentionParams &p = launch.params;
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const bool used = g < row.heads;
  const float *query = p.q.row(row.sequence) + (row.first_query_head + (used ? g : 0)) * static_cast<int64_t>(D);
  float x[D / 16][4], largest = 0;
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      x[step][i] = used ? query[step * 16 + i / 2 * 8 + 2 * t + i % 2] : 0.f;
      largest = fmaxf(largest, fabsf(x[step][i]));
    }
  }
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const int exponent = largest > 0 && isfinite(largest) ? ilogbf(largest) : 0;
  const float down = ldexpf(1.f, -exponent);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    split<T>(x[step][0] * down, x[step][1] * down, q[step][0], q[step][1]);
    split<T>(x[step][2] * down, x[step][3] * down, q[step][2], q[step][3]);
  }
  return ldexpf(p.scale * 1.4426950408889634f, exponent);
}

/* Running state of a lane's query head: lane (g, t) keeps head g. */
template <int D>
struct HeadState {
  float out[D / 8][4] = {}; /* dimensions 8 n + 2t, + 1: of the high parts, then of the low parts */
  float maximum = -INFINITY, total = 0;
};

/* Scores of the tile's 16 tokens: out[2 half + i] is token 8 half + 2t + i. */
template <typename T, int D>
__device__ __forceinline__ void score_tile(const uint32_t (&q)[D / 16][4], uint32_t keys, float (&out)[4]) {
  using Tile = DecodeTile<D>;
  const int lane = threadIdx.x % kWarp, r = lane % 8, matrix = lane / 8;
  float c[2][4] = {};
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    const int column = step * 16 + matrix % 2 * 8;
    uint32_t b[4];
    load_matrices(b, keys + matrix / 2 * Tile::kHalfBytes + column / Tile::kWidth * Tile::kUnitBytes +
                         2 * swizzled(Tile::kWidth, r, column % Tile::kWidth));
    multiply_add<T>(c[0], q[step], b[0], b[1]);
    multiply_add<T>(c[1], q[step], b[2], b[3]);
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    out[2 * half] = c[half][0] + c[half][2];
    out[2 * half + 1] = c[half][1] + c[half][3];
  }
}

/* Turns scores into weights under the new maximum and rescales what was summed before. */
template <int D>
__device__ __forceinline__ void weigh(float (&s)[4], HeadState<D> &state) {
  float maximum = fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]));
  maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 1));
  maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, 2));
  maximum = fmaxf(maximum, state.maximum);
  const float limit = maximum == -INFINITY ? 0.f : maximum;
  if (__any_sync(kAllLanes, maximum > state.maximum)) {
    const float factor = rescale(state.maximum, limit);
    state.total *= factor;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) state.out[n][i] *= factor;
    }
    state.maximum = maximum;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    s[i] = s[i] == -INFINITY ? 0.f : exp2f(s[i] - limit);
    state.total += s[i];
  }
}

template <typename T, int D>
__device__ __forceinline__ void sum_values(const float (&weights)[4], uint32_t values, HeadState<D> &state) {
  using Tile = DecodeTile<D>;
  const int lane = threadIdx.x % kWarp, r = lane % 8, matrix = lane / 8;
  uint32_t a[4];
  split<T>(weights[0], weights[1], a[0], a[1]);
  split<T>(weights[2], weights[3], a[2], a[3]);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    const int column = step * 16 + matrix / 2 * 8;
    uint32_t b[4];
    load_matrices_transposed(b, values + matrix % 2 * Tile::kHalfBytes + column / Tile::kWidth * Tile::kUnitBytes +
                                    2 * swizzled(Tile::kWidth, r, column % Tile::kWidth));
    multiply_add<T>(state.out[2 * step], a, b[0], b[1]);
    multiply_add<T>(state.out[2 * step + 1], a, b[2], b[3]);
  }
}

/* Brings the warps' states together in shared memory: acc [kRowHeads, D], maxima, totals. */
template <int D>
__device__ __forceinline__ void merge_warps(const HeadState<D> &state, float *shared, float *acc, float *maxima, float *totals) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  float total = state.total + __shfl_xor_sync(kAllLanes, state.total, 1);
  total += __shfl_xor_sync(kAllLanes, total, 2);
  float *own = shared + (warp * kRowHeads + g) * (D + 2);
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    own[8 * n + 2 * t] = state.out[n][0] + state.out[n][2];
    own[8 * n + 2 * t + 1] = state.out[n][1] + state.out[n][3];
  }
  if (t == 0) {
    own[D] = state.maximum;
    own[D + 1] = total;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRowHeads * D; i += kDecodeThreads) {
    const float *part = shared + i / D * (D + 2);
    constexpr int kStride = kRowHeads * (D + 2);
    float joint = -INFINITY, sum = 0, sum_total = 0;
#pragma unroll
    for (int w = 0; w < kDecodeWarps; w++) joint = fmaxf(joint, part[w * kStride + D]);
#pragma unroll
    for (int w = 0; w < kDecodeWarps; w++) {
      const float factor = rescale(part[w * kStride + D], joint);
      sum += part[w * kStride + i % D] * factor;
      sum_total += part[w * kStride + D + 1] * factor;
    }
    acc[i] = sum;
    if (i % D == 0) {
      maxima[i / D] = joint;
      totals[i / D] = sum_total;
    }
  }
  __syncthreads();
}

template <typename T, int D>
__global__ void __launch_bounds__(kDecodeThreads) decode_mma_kernel(const __grid_constant__ DecodeLaunch launch) {
  using Tile = DecodeTile<D>;
  extern __shared__ __align__(1024) unsigned char shared[];
  let_next_start();
  wait_for_previous();
  RowPages row;
  if (!find_pages(launch, row)) return;

  /* fill the ring */
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, t = lane % 4;
  const int tiles = (((row.end - row.begin) << row.page_shift) + kTileTokens - 1) / kTileTokens;
  const uint32_t ring = shared_address(shared) + warp * Tile::kWarpBytes;
  auto locate_tile = [&](int tile, HalfTile (&halves)[2]) {
    halves[0] = locate(launch, row, tile * kTileTokens);
    halves[1] = locate(launch, row, tile * kTileTokens + 8);
  };
  HalfTile next[2], valid[Tile::kStages][2];
#pragma unroll
  for (int stage = 0; stage < Tile::kStages - 1; stage++) {
    locate_tile(warp + stage * kDecodeWarps, valid[stage]);
    if (warp + stage * kDecodeWarps < tiles) request_tile<T, D>(launch, row, valid[stage], ring + stage * Tile::kBytes);
    copy_commit();
  }
  locate_tile(warp + (Tile::kStages - 1) * kDecodeWarps, next);
  uint32_t q[D / 16][4];
  const float factor = load_queries<T, D>(launch, row, q);

  /* one tile after the other; the page numbers of a tile are looked up one round before its copies start */
  HeadState<D> state;
  for (int tile = warp; tile < tiles; tile += Tile::kStages * kDecodeWarps) {
#pragma unroll
    for (int stage = 0; stage < Tile::kStages; stage++) {
      const int current = tile + stage * kDecodeWarps, ahead = current + (Tile::kStages - 1) * kDecodeWarps;
      if (current >= tiles) break;
      constexpr int kBefore = Tile::kStages - 1;
      const int slot = (stage + kBefore) % Tile::kStages;
      copy_wait<Tile::kStages - 2>();
      __syncwarp();
      valid[slot][0] = next[0];
      valid[slot][1] = next[1];
      if (ahead < tiles) request_tile<T, D>(launch, row, valid[slot], ring + slot * Tile::kBytes);
      copy_commit();
      locate_tile(ahead + kDecodeWarps, next);
      float s[4];
      score_tile<T, D>(q, ring + stage * Tile::kBytes, s);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const HalfTile &half = valid[stage][i / 2];
        const int token = 2 * t + i % 2;
        s[i] = token >= half.begin && token < half.end ? s[i] * factor : -INFINITY;
      }
      weigh(s, state);
      sum_values<T, D>(s, ring + stage * Tile::kBytes + Tile::kMatrixBytes, state);
    }
  }
  copy_wait<0>();
  __syncthreads();

  float *merge = reinterpret_cast<float *>(shared), *acc = merge + kDecodeWarps * kRowHeads * (D + 2);
  merge_warps(state, merge, acc, acc + kRowHeads * D, acc + kRowHeads * (D + 1));
  finish_row(launch, row, acc, acc + kRowHeads * D, acc + kRowHeads * (D + 1));
}

}  // namespace ps
