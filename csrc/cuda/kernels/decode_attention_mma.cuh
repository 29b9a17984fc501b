/* Decode attention on tensor cores, for pages of 16-bit and 8-bit numbers.
 *
 * Each warp works alone on tiles of 16 tokens that arrive through its own ring of asynchronous copies, so that nothing waits for
 * the slowest warp. The 16 rows of a product are 8 query heads twice: rows 0 to 7 hold the high parts of the queries (then of the
 * weights), rows 8 to 15 what rounding left of them. A lane holds both parts of the same number and adds them: precision of f32 for
 * no instruction more.
 *
 * Numbers of 8 bits become bf16, exactly, in the registers of a product, and their scales multiply scores and weights. ldmatrix moves them
 * in pairs, so a lane gets other dimensions than it would of 16-bit numbers (kv_dim, out_dim). */
#pragma once

#include "decode_tile.cuh"

namespace ps {

/* The type of a product's operands. */
template <typename Kv>
using Operand = typename std::conditional<kIsScaled<Kv>, bf16, Kv>::type;

/* Bytes `first` and `second` of a word as a pair of bf16. */
template <typename Kv, int First, int Second>
__device__ __forceinline__ uint32_t widen_pair(uint32_t word) {
  uint32_t bits;
  if constexpr (std::is_same<Kv, q8>::value) {
    /* 128 + the low 7 bits, less 128, or 256 for a negative number */
    const uint32_t shifted = __byte_perm(word, 0x43434343u, 0x4040u | Second << 8 | First);
    const uint32_t low = shifted & 0xff7fff7fu, origin = shifted & 0xff80ff80u;
    const __nv_bfloat162 number = __hsub2(reinterpret_cast<const __nv_bfloat162 &>(low), reinterpret_cast<const __nv_bfloat162 &>(origin));
    bits = reinterpret_cast<const uint32_t &>(number);
  } else {
    /* bf16 has room for the bits of e4m3, with an exponent that is larger by 120 */
    const uint32_t high = __byte_perm(word, 0, 0x0404u | Second << 12 | First << 4);
    const uint32_t small = (high & 0x80008000u) | (high >> 4 & 0x07f007f0u), unit = 0x7b807b80u;
    const __nv_bfloat162 number = __hmul2(reinterpret_cast<const __nv_bfloat162 &>(small), reinterpret_cast<const __nv_bfloat162 &>(unit));
    bits = reinterpret_cast<const uint32_t &>(number);
  }
  return bits;
}

/* The dimension, in its step of 16, of number i (0 to 3) that lane (g, t) has of a key. */
template <typename Kv>
__device__ __forceinline__ int kv_dim(int t, int i) {
  return kIsScaled<Kv> ? 4 * t + i : i / 2 * 8 + 2 * t + i % 2;
}

/* The dimension of number i (0 or 1) of tile n of 8 columns that lane (g, t) has of an answer. */
template <typename Kv>
__device__ __forceinline__ int out_dim(int n, int t, int i) {
  return kIsScaled<Kv> ? n / 2 * 16 + 4 * t + 2 * i + n % 2 : 8 * n + 2 * t + i;
}

/* This lane's numbers of the row's queries, which lie `stride` floats apart. They are requested before pages are, or they would arrive after
 * them. */
template <typename Kv, int D>
__device__ __forceinline__ void read_queries(const float *queries, int stride, int heads, float (&x)[D / 16][4]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const bool used = g < heads;
  const float *query = queries + (used ? g : 0) * stride;
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
#pragma unroll
    for (int i = 0; i < 4; i++) x[step][i] = used ? query[step * 16 + kv_dim<Kv>(t, i)] : 0.f;
  }
}

/* The queries as rows of the first product: fragments for every 16 dimensions, normed by a power of two a head so that 16 bits hold them.
 * Returns the factor that turns the product into a score in base 2. */
template <typename Kv, int D>
__device__ __forceinline__ float split_queries(float scale, const float (&x)[D / 16][4], uint32_t (&q)[D / 16][4]) {
  float largest = 0;
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
#pragma unroll
    for (int i = 0; i < 4; i++) largest = fmaxf(largest, fabsf(x[step][i]));
  }
  const int exponent = quad_exponent(largest);
  const float down = power_of_two(-exponent);
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    split<Operand<Kv>>(x[step][0] * down, x[step][1] * down, q[step][0], q[step][1]);
    split<Operand<Kv>>(x[step][2] * down, x[step][3] * down, q[step][2], q[step][3]);
  }
  return scale * 1.4426950408889634f * power_of_two(exponent);
}

/* Running state of a lane's query head: lane (g, t) keeps head g. */
template <int D>
struct HeadState {
  float out[D / 8][4] = {}; /* dimensions out_dim(n, t, 0 and 1): of the high parts, then of the low parts */
  float maximum = -INFINITY, total = 0;
};

/* Scores of the tile's 16 tokens, without the scales of keys: out[2 half + i] is token 8 half + 2t + i. */
template <typename Kv, int D>
__device__ __forceinline__ void score_tile(const uint32_t (&q)[D / 16][4], uint32_t keys, float (&out)[4]) {
  using Tile = DecodeTile<Kv, D>;
  const int lane = threadIdx.x % kWarp, r = lane % 8, matrix = lane / 8;
  float sums[2][2][4] = {}; /* of even and of odd steps, so that fewer products wait for each other */
#pragma unroll
  for (int step = 0; step < Tile::kRow / 16; step++) {
    float (&c)[2][4] = sums[step % 2];
    const int column = step * 16 + matrix % 2 * 8;
    uint32_t b[4];
    load_matrices(b, keys + matrix / 2 * Tile::kHalfBytes + column / Tile::kWidth * Tile::kUnitBytes +
                         2 * swizzled(Tile::kWidth, r, column % Tile::kWidth));
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if constexpr (Tile::kScaled) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const uint32_t word = b[2 * half + i];
          multiply_add<bf16>(c[half], q[2 * step + i], widen_pair<Kv, 0, 1>(word), widen_pair<Kv, 2, 3>(word));
        }
      } else {
        multiply_add<Kv>(c[half], q[step], b[2 * half], b[2 * half + 1]);
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float (&even)[4] = sums[0][half], (&odd)[4] = sums[1][half];
    out[2 * half] = (even[0] + odd[0]) + (even[2] + odd[2]);
    out[2 * half + 1] = (even[1] + odd[1]) + (even[3] + odd[3]);
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

template <typename Kv, int D>
__device__ __forceinline__ void sum_values(const float (&weights)[4], uint32_t values, HeadState<D> &state) {
  using Tile = DecodeTile<Kv, D>;
  const int lane = threadIdx.x % kWarp, r = lane % 8, matrix = lane / 8;
  uint32_t a[4];
  split<Operand<Kv>>(weights[0], weights[1], a[0], a[1]);
  split<Operand<Kv>>(weights[2], weights[3], a[2], a[3]);
#pragma unroll
  for (int step = 0; step < Tile::kRow / 16; step++) {
    const int column = step * 16 + matrix / 2 * 8;
    uint32_t b[4];
    load_matrices_transposed(b, values + matrix % 2 * Tile::kHalfBytes + column / Tile::kWidth * Tile::kUnitBytes +
                                    2 * swizzled(Tile::kWidth, r, column % Tile::kWidth));
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if constexpr (Tile::kScaled) { /* a word has two tokens of two dimensions */
        multiply_add<bf16>(state.out[4 * step + 2 * i], a, widen_pair<Kv, 0, 2>(b[2 * i]), widen_pair<Kv, 0, 2>(b[2 * i + 1]));
        multiply_add<bf16>(state.out[4 * step + 2 * i + 1], a, widen_pair<Kv, 1, 3>(b[2 * i]), widen_pair<Kv, 1, 3>(b[2 * i + 1]));
      } else {
        multiply_add<Kv>(state.out[2 * step + i], a, b[2 * i], b[2 * i + 1]);
      }
    }
  }
}

/* A barrier of the first Threads threads of a block, where others have something else to do. */
template <int Threads>
__device__ __forceinline__ void sync_first() {
  asm volatile("bar.sync 1, %0;" ::"n"(Threads) : "memory");
}

/* Combines the warps' states of so many heads: emit(i, sum, maximum, total) for numbers 4 i to 4 i + 3 of [heads, D], with the maximum (base
 * 2) that the sum was taken under and the total of the weights. The first Warps warps of the block call; `shared` may be the ring. */
template <typename Kv, int D, int Warps, typename Emit>
__device__ __forceinline__ void merge_warps(const HeadState<D> &state, int heads, float *shared, const Emit &emit) {
  constexpr int kRow = D + kMergePad, kStride = kRowHeads * kRow;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, t = lane % 4;
  float total = state.total + __shfl_xor_sync(kAllLanes, state.total, 1);
  total += __shfl_xor_sync(kAllLanes, total, 2);
  sync_first<Warps * kWarp>(); /* the ring is in use until here */
  if (g < heads) {
    float *own = shared + warp * kStride + g * kRow;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const float first = state.out[n][0] + state.out[n][2], second = state.out[n][1] + state.out[n][3];
      if constexpr (kIsScaled<Kv>) own[out_dim<Kv>(n, t, 0)] = first, own[out_dim<Kv>(n, t, 1)] = second;
      else *reinterpret_cast<float2 *>(own + out_dim<Kv>(n, t, 0)) = {first, second};
    }
    if (t == 0) *reinterpret_cast<float2 *>(own + D) = {state.maximum, total};
  }
  sync_first<Warps * kWarp>();
  for (int i = threadIdx.x; i < heads * D / 4; i += Warps * kWarp) {
    const float *part = shared + i * 4 / D * kRow;
    float2 parts[Warps];
    float joint = -INFINITY, sum_total = 0;
    float4 sum{};
#pragma unroll
    for (int w = 0; w < Warps; w++) {
      parts[w] = *reinterpret_cast<const float2 *>(part + w * kStride + D);
      joint = fmaxf(joint, parts[w].x);
    }
#pragma unroll
    for (int w = 0; w < Warps; w++) {
      const float factor = rescale(parts[w].x, joint);
      add_scaled(sum, *reinterpret_cast<const float4 *>(part + w * kStride + i * 4 % D), factor);
      sum_total += parts[w].y * factor;
    }
    emit(i, sum, joint, sum_total);
  }
}

/* Pages that earlier kernels have filled, and queries that lie in memory: read when those kernels are done. */
struct Settled {
  static constexpr bool kReadsEarly = false, kKnowsPages = false;
  const float *in_memory; /* [heads, stride] */
  int stride;

  __device__ __forceinline__ const float *queries() const { return in_memory; }
  __device__ __forceinline__ void complete(int, uint32_t) const {}
};

/* Attends to the pages [row.begin, row.end) of the row's list: the first `warps` of Warps warps share its tiles out in turn. `source.queries()` gives
 * those of the row's heads, [heads, source.stride], when earlier kernels are done; `source.complete(tile, address)` adds to a tile in the ring what the
 * pages lack. The ring lies at the start of shared memory; nothing is left in flight. Before earlier kernels are done, the page table is
 * read, and where kReadsEarly says so, pages. kKnowsPages: locate (decode_tile.cuh). */
template <typename Kv, int D, int Warps, int MostStages = 4, typename Source>
__device__ __forceinline__ void attend_pages(const DecodeLaunch &launch, const RowPages &row, const Source &source, unsigned char *shared,
                                             HeadState<D> &state, int warps = Warps) {
  using Tile = DecodeTile<Kv, D, Warps, MostStages>;
  constexpr int kAhead = Tile::kStages - 1;
  /* fill the ring */
  const int warp = threadIdx.x / kWarp, t = threadIdx.x % 4;
  const int all_tiles = (((row.end - row.begin) << row.page_shift) + kTileTokens - 1) / kTileTokens;
  const int tiles = warps == Warps || warp < warps ? (all_tiles - warp + warps - 1) / warps : 0; /* of this warp */
  const uint32_t ring = shared_address(shared) + warp * Tile::kWarpBytes, ring_end = ring + Tile::kWarpBytes;
  TileBook<Source::kKnowsPages> book(warps);
  book.open(launch, row, tiles);
  int counted[Tile::kStages][2] = {}; /* which tokens count, of the tile in use and of those behind it */
  auto request = [&](int ordinal, uint32_t slot) {
    const HalfTile halves[2] = {book.half(ordinal, 0), book.half(ordinal, 1)};
#pragma unroll
    for (int i = 0; i < kAhead; i++) counted[i][0] = counted[i + 1][0], counted[i][1] = counted[i + 1][1];
    counted[kAhead][0] = halves[0].packed;
    counted[kAhead][1] = halves[1].packed;
    if (ordinal < tiles) request_tile<Kv, D>(launch, row, halves, slot);
    copy_commit();
  };
  /* Neither this loop nor the one below is unrolled, because code that a step runs once per layer takes time to load. */
  auto fill = [&] {
#pragma unroll 1
    for (int stage = 0; stage < kAhead; stage++) request(stage, ring + stage * Tile::kBytes);
  };
  if constexpr (Source::kReadsEarly) fill();
  if (launch.ready == nullptr) wait_for_previous();
  float x[D / 16][4];
  read_queries<Kv, D>(source.queries(), source.stride, row.heads, x);
  if constexpr (!Source::kReadsEarly) fill();
  let_next_start(); /* not sooner where many blocks wait: weights that the next product requests would come before their pages */
  uint32_t q[D / 16][4];
  const float factor = split_queries<Kv, D>(launch.params.scale, x, q);

  /* one tile after the other */
  uint32_t slot = ring, free_slot = ring + kAhead * Tile::kBytes;
#pragma unroll 1
  for (int ordinal = 0; ordinal < tiles; ordinal++) {
    copy_wait<kAhead - 1>();
    __syncwarp();
    const int ahead = ordinal + kAhead;
    if (ahead % (kWarp / 2) == 0) book.turn(launch, row, ahead);
    request(ahead, free_slot);
    source.complete(warp + ordinal * warps, slot);
    float s[4];
    auto counts = [&](int i) { return HalfTile{0, counted[0][i / 2]}.counts(2 * t + i % 2); };
    auto token = [&](int i) { return i / 2 * 8 + 2 * t + i % 2; };
    const float *scales = reinterpret_cast<const float *>(shared + warp * Tile::kWarpBytes + (slot - ring) + 2 * Tile::kMatrixBytes);
    score_tile<Kv, D>(q, slot, s);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float scale = factor;
      if constexpr (Tile::kScaled) scale *= scales[token(i)];
      s[i] = counts(i) ? s[i] * scale : -INFINITY;
    }
    weigh(s, state);
    if constexpr (Tile::kScaled) {
#pragma unroll
      for (int i = 0; i < 4; i++) s[i] = counts(i) ? s[i] * scales[kTileTokens + token(i)] : 0.f; /* that of others may be NaN */
    }
    sum_values<Kv, D>(s, slot + Tile::kMatrixBytes, state);
    free_slot = slot;
    slot = slot + Tile::kBytes == ring_end ? ring : slot + Tile::kBytes;
  }
  copy_wait<0>();
}

template <typename Kv, int D, int Warps, int MostStages>
__global__ void __launch_bounds__(Warps *kWarp) decode_mma_kernel(const __grid_constant__ DecodeLaunch launch) {
  extern __shared__ __align__(1024) unsigned char shared[];
  RowPages row;
  if (!find_pages(launch, row)) {
    wait_for_previous(); /* every block, or the launch after this one could start before the one before it is done */
    return;
  }
  HeadState<D> state;
  /* as many as the kernels that join such lists within a cluster have, for the same bits */
  const int warps = launch.rows <= kFewRows && row.count << row.page_shift <= kClusterTokens ? kDecodeWarps : Warps;
  attend_pages<Kv, D, Warps, MostStages>(launch, row, Settled{queries_of(launch, row), D}, shared, state, warps);
  merge_warps<Kv, D, Warps>(state, row.heads, reinterpret_cast<float *>(shared),
                            [&](int i, const float4 &sum, float maximum, float total) { store_part(launch, row, i, sum, maximum, total); });
  join_row(launch, row);
  if (launch.ready != nullptr) wait_for_previous();
}

}  // namespace ps
