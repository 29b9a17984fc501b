/* Decode attention on tensor cores, for pages of 16-bit numbers.
 *
 * Each warp works alone on tiles of 16 tokens that arrive through its own ring of asynchronous copies, so that nothing waits for
 * the slowest warp. The 16 rows of a product are 8 query heads twice: rows 0 to 7 hold the high parts of the queries (then of the
 * weights), rows 8 to 15 what rounding left of them. A lane holds both parts of the same number and adds them: precision of f32 for
 * no instruction more. */
#pragma once

#include "decode_tile.cuh"

namespace ps {

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
  const int exponent = quad_exponent(largest);
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

/* A block's answer in shared memory. */
struct Merged {
  float *acc;              /* [kRowHeads, D] */
  float *maxima, *totals;  /* [kRowHeads] */
};

/* Combines the warps' states. All threads of the block call, after a barrier; warps beyond kDecodeWarps contribute nothing. */
template <int D>
__device__ __forceinline__ Merged merge_warps(const HeadState<D> &state, float *shared) {
  float *acc = shared + kDecodeWarps * kRowHeads * (D + 2), *maxima = acc + kRowHeads * D, *totals = maxima + kRowHeads;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  float total = state.total + __shfl_xor_sync(kAllLanes, state.total, 1);
  total += __shfl_xor_sync(kAllLanes, total, 2);
  if (warp < kDecodeWarps) {
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
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRowHeads * D; i += blockDim.x) {
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
  return {acc, maxima, totals};
}

/* Attends to the pages [row.begin, row.end) of the row's list: the first kDecodeWarps warps share its tiles out in turn. The ring lies
 * at the start of shared memory; nothing is left in flight. */
template <typename T, int D>
__device__ __forceinline__ void attend_pages(const DecodeLaunch &launch, const RowPages &row, unsigned char *shared, HeadState<D> &state) {
  using Tile = DecodeTile<D>;
  /* fill the ring */
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, t = lane % 4;
  const int all_tiles = (((row.end - row.begin) << row.page_shift) + kTileTokens - 1) / kTileTokens;
  const int tiles = (all_tiles - warp + kDecodeWarps - 1) / kDecodeWarps; /* of this warp */
  const uint32_t ring = shared_address(shared) + warp * Tile::kWarpBytes;
  TileBook book;
  book.open(launch, row);
  int counted[Tile::kStages][2]; /* which tokens of a slot's tile count */
  auto request = [&](int ordinal, int slot) {
    const HalfTile halves[2] = {book.half(ordinal, 0), book.half(ordinal, 1)};
    counted[slot][0] = halves[0].packed;
    counted[slot][1] = halves[1].packed;
    if (ordinal < tiles) request_tile<T, D>(launch, row, halves, ring + slot * Tile::kBytes);
    copy_commit();
  };
#pragma unroll
  for (int stage = 0; stage < Tile::kStages - 1; stage++) request(stage, stage);
  uint32_t q[D / 16][4];
  const float factor = load_queries<T, D>(launch, row, q);

  /* one tile after the other */
  for (int first = 0; first < tiles; first += Tile::kStages) {
#pragma unroll
    for (int stage = 0; stage < Tile::kStages; stage++) {
      const int ordinal = first + stage, ahead = ordinal + Tile::kStages - 1;
      if (ordinal >= tiles) break;
      copy_wait<Tile::kStages - 2>();
      __syncwarp();
      if (ahead % (kWarp / 2) == 0) book.turn(launch, row, ahead);
      constexpr int kBefore = Tile::kStages - 1;
      request(ahead, (stage + kBefore) % Tile::kStages);
      float s[4];
      score_tile<T, D>(q, ring + stage * Tile::kBytes, s);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const HalfTile half{0, counted[stage][i / 2]};
        s[i] = half.counts(2 * t + i % 2) ? s[i] * factor : -INFINITY;
      }
      weigh(s, state);
      sum_values<T, D>(s, ring + stage * Tile::kBytes + Tile::kMatrixBytes, state);
    }
  }
  copy_wait<0>();
}

template <typename T, int D>
__global__ void __launch_bounds__(kDecodeThreads) decode_mma_kernel(const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ __align__(1024) unsigned char shared[];
  let_next_start();
  wait_for_previous();
  RowPages row;
  if (!find_pages(launch, row)) return;
  HeadState<D> state;
  attend_pages<T, D>(launch, row, shared, state);
  __syncthreads();
  const Merged merged = merge_warps(state, reinterpret_cast<float *>(shared));
  finish_row(launch, row, merged.acc, merged.maxima, merged.totals);
}

}  // namespace ps
