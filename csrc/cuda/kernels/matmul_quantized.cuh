/* The product of a few tokens with weights in blocks: 1 to 16 tokens on tensor cores, every weight read once. Bound by the bytes of the
 * weights.
 *
 * A block takes a share of the tiles (16 outputs) and, where x does not fit, of the inputs (add_splits.cuh then adds up). It rounds its x
 * to f16 once, each token times a power of two, into shared memory. Its warps share out the inputs of each tile; every warp copies whole
 * stages of weights, which lie one behind the other (quantized.cuh), into a ring of its own, across tiles and before the previous kernel is
 * done: no operation that runs beside it writes weights. At the end of a tile the block adds up what its warps found, in order.
 *
 * Unpacking takes as many instructions as the memory leaves time for, so it does little: the bits of a weight become the last bits of an f16
 * of 1024, and what that adds to a product, 1024 times the sum of x, is where the sum of a sub-block starts, negative. The sum is multiplied
 * by the sub-block's scale in f32. Where two weights share a byte, the upper one counts 16 times, and its x is a sixteenth.
 *
 * Of one token, the product may take in its norm and its ending (joins.cuh). A gated block takes a tile of gates, then the tile of the numbers
 * that they multiply.
 *
 * A product of one token needs one of an instruction's 8 columns. Where a region has 8 sub-blocks with 6-bit scales, column g then takes the x
 * of sub-block g, and of what the weights of sub-block s give, column s counts: a lane reads x once, and scales two sub-blocks instead of 8. */
#pragma once

#include "add_splits.cuh"
#include "matvec_split.cuh"
#include "mma.cuh"
#include "quantized_x.cuh"

namespace ps {

/* Stages in a warp's ring. Of few tokens two blocks fit a multiprocessor; of many x takes the room. */
template <typename F, int Columns>
constexpr int kStages = Columns > 1 || kStageBytes<F> > 2304 ? 2 : 4608 / kStageBytes<F>;

constexpr int kMostWarps = 32;

/* How the tiles of a weight in blocks lie. */
struct TileLayout {
  int64_t stride; /* bytes from one tile to the next */
  int regions;    /* of a tile */
};

/* Shared memory, in this order: rings; x; sums of the warps, twice where a tile may be added up while the next one is begun. */
constexpr int kSumStride = kTileRows + 4; /* floats of a token: no bank conflicts */
template <typename F, int Columns>
constexpr int64_t quantized_sum_bytes(int64_t tokens) {
  return (Columns == 1 ? 2 : 1) * kWarps<F> * tokens * kSumStride * 4;
}
template <typename F, int Columns>
constexpr int64_t kQuantizedRingBytes = int64_t(kWarps<F>) * kStages<F, Columns> * kStageBytes<F>;

constexpr uint32_t k1024 = 0x64006400u; /* two f16 of 1024, whose last bits count ones */

/* A constant in a register: an instruction has room for one constant only. */
__device__ __forceinline__ uint32_t in_register(uint32_t constant) {
  uint32_t out;
  asm("mov.b32 %0, %1;" : "=r"(out) : "r"(constant));
  return out;
}

/* A number that nobody reads. */
__device__ __forceinline__ float any_number() {
  float out;
  asm("" : "=f"(out));
  return out;
}

/* (word & mask) | k1024 in one instruction. */
__device__ __forceinline__ uint32_t onto_1024(uint32_t word, uint32_t mask, uint32_t k1024_register) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(word), "r"(mask), "r"(k1024_register));
  return out;
}

/* Byte `index` of a word as a float; origin: in_register(0x4b000000), 2^23. */
__device__ __forceinline__ float byte_float(uint32_t word, int index, uint32_t origin) {
  return __uint_as_float(__byte_perm(word, origin, 0x7650u | index)) - 0x1p23f;
}

/* The scales of a region's rows g and g + 8, and what a sub-block's sums of these rows add to those of the tile. */
template <typename F>
struct RegionScales {
  const uint8_t *region;
  uint32_t origin = in_register(0x4b000000u);
  float d[2], m[2];
  uint32_t scales[2][2], minima[2]; /* kSixBits: bytes of sub-blocks 0 to 3 and 4 to 7, of either row; of sub-blocks 2t and 2t + 1 in the low half */

  static constexpr bool kJoinsSubs = F::kScales == Scales::kSixBits || F::kScales == Scales::kPerHalf; /* d counts for the whole region */

  __device__ __forceinline__ explicit RegionScales(const uint8_t *at) : region(at) {
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    if constexpr (F::kScales == Scales::kFloat) {
      const float2 both = *reinterpret_cast<const float2 *>(region + F::kScalesAt + g * 8);
      d[0] = both.x * 256.f, d[1] = both.y * 256.f;
    } else if constexpr (kHasMinimum<F>) {
      const uint2 bits = *reinterpret_cast<const uint2 *>(region + kHalvesAt<F> + g * 8);
      const float2 both = __half22float2(as_halves(bits.x)), least = __half22float2(as_halves(bits.y));
      d[0] = both.x, d[1] = both.y, m[0] = least.x, m[1] = least.y;
    } else {
      const float2 both = __half22float2(*reinterpret_cast<const __half2 *>(region + kHalvesAt<F> + g * 4));
      d[0] = both.x, d[1] = both.y;
    }
    if constexpr (F::kScales == Scales::kSixBits) {
      const uint2 *words = reinterpret_cast<const uint2 *>(region + F::kScalesAt + g * 24);
      const uint32_t q[6] = {words[0].x, words[0].y, words[1].x, words[1].y, words[2].x, words[2].y};
#pragma unroll
      for (int row = 0; row < 2; row++) {
        const uint32_t *own = q + row * 3;
        scales[row][0] = own[0] & 0x3f3f3f3fu, scales[row][1] = (own[2] & 0x0f0f0f0fu) | (own[0] >> 2 & 0x30303030u);
        const uint32_t low = own[1] & 0x3f3f3f3fu, high = (own[2] >> 4 & 0x0f0f0f0fu) | (own[1] >> 2 & 0x30303030u);
        minima[row] = (t < 2 ? low : high) >> (t % 2 * 16);
      }
    }
  }

  /* Step: 2 to leave out every second token. c, of either half where scales differ: sums of rows g, g + 8 (i / 2) and two tokens (i % 2). x_sums: of these tokens, kTwo. */
  template <int Step>
  __device__ __forceinline__ void add(int sub, const float (&c)[kStarts<F>][4], const float (&x_sums)[2], float (&out)[4]) const {
    if constexpr (F::kScales == Scales::kPerHalf) { /* bytes: g first, g last, g + 8 first, g + 8 last */
      const uint32_t four = *reinterpret_cast<const uint32_t *>(region + F::kScalesAt + (sub * 8 + threadIdx.x % kWarp / 4) * 4) ^ 0x80808080u;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float scale[2] = {byte_float(four, half, origin) - 128.f, byte_float(four, 2 + half, origin) - 128.f};
#pragma unroll
        for (int i = 0; i < 4; i += Step) out[i] = fmaf(scale[i / 2], c[half][i], out[i]);
      }
    } else {
      float scale[2] = {d[0], d[1]};
      if constexpr (F::kScales == Scales::kSixBits) {
        scale[0] = byte_float(scales[0][sub / 4], sub % 4, origin), scale[1] = byte_float(scales[1][sub / 4], sub % 4, origin);
      }
#pragma unroll
      for (int i = 0; i < 4; i += Step) {
        out[i] = fmaf(scale[i / 2], c[0][i], out[i]);
        if constexpr (F::kScales == Scales::kTwo) out[i] = fmaf(m[i / 2], x_sums[i % 2], out[i]);
      }
    }
  }

  /* Adds a region whose sub-blocks were added up. x_sums: of the column's token, as PreparedX::sums has them. */
  template <int Step>
  __device__ __forceinline__ void finish(const float (&joined)[4], const uint2 *x_sums, float (&out)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i += Step) out[i] = fmaf(d[i / 2], joined[i], out[i]);
    if constexpr (F::kScales == Scales::kSixBits) { /* minima times sums of x: a product of 16 rows and 8 sub-blocks */
      uint32_t a[4];
#pragma unroll
      for (int row = 0; row < 2; row++) {
        a[row] = a[row + 2] = as_bits(__hadd2(as_halves(__byte_perm(minima[row], k1024, 0x5150)), __float2half2_rn(-1024.f)));
      }
      float c[4] = {};
      multiply_add<f16>(c, a, x_sums->x, x_sums->y);
#pragma unroll
      for (int i = 0; i < 4; i += Step) out[i] = fmaf(-32.f * m[i / 2], c[i], out[i]);
    }
  }
};

/* Adds a region's sums of one token to those of the tile, kSixBits. c: rows g, g + 8 (i / 2) of sub-blocks 2t, 2t + 1 (i % 2). x_sums: of
 * these sub-blocks. out: rows g, g + 8. */
template <typename F>
__device__ __forceinline__ void scale_own(const uint8_t *region, const float (&c)[4], const float (&x_sums)[2], float (&out)[2]) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const uint2 *words = reinterpret_cast<const uint2 *>(region + F::kScalesAt + g * 24);
  const uint32_t q[6] = {words[0].x, words[0].y, words[1].x, words[1].y, words[2].x, words[2].y};
  const uint2 bits = *reinterpret_cast<const uint2 *>(region + kHalvesAt<F> + g * 8);
  const float2 d = __half22float2(as_halves(bits.x)), m = __half22float2(as_halves(bits.y));
  const uint32_t origin = in_register(0x4b000000u);
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const uint32_t *own = q + row * 3;
    const uint32_t high_scales = (own[2] & 0x0f0f0f0fu) | (own[0] >> 2 & 0x30303030u);
    const uint32_t high_minima = (own[2] >> 4 & 0x0f0f0f0fu) | (own[1] >> 2 & 0x30303030u);
    const uint32_t scales = (t < 2 ? own[0] & 0x3f3f3f3fu : high_scales) >> (t % 2 * 16);
    const uint32_t minima = (t < 2 ? own[1] & 0x3f3f3f3fu : high_minima) >> (t % 2 * 16);
    const float sum = fmaf(byte_float(scales, 1, origin), c[2 * row + 1], byte_float(scales, 0, origin) * c[2 * row]);
    const float least = fmaf(byte_float(minima, 1, origin), x_sums[1], byte_float(minima, 0, origin) * x_sums[0]);
    out[row] = fmaf(row == 0 ? d.x : d.y, sum, out[row]);
    out[row] = fmaf(row == 0 ? -m.x : -m.y, least, out[row]);
  }
}

/* Two rows' eight numbers of a sub-block as operands of two products over 16 inputs. */
struct Operands {
  uint32_t a[2][4];
};

/* A row's 4-bit words with their high bits: 1024 + inputs 4t, 4t + 2; 4t + 1, 4t + 3; and 1024 + 16 times the same of the last 16. */
template <typename F>
__device__ __forceinline__ void unpack_row(uint32_t (&pairs)[4], uint32_t low, uint32_t high) {
  const uint32_t spread = F::kHighBits == 1 ? high * 0x1001u : F::kHighBits == 2 ? __byte_perm(high, 0, 0x4140) : 0; /* second halves to bit 16 on */
  constexpr uint32_t kMask = F::kHighBits == 2 ? 0x00030003u : 0x00010001u;
  const uint32_t origin = in_register(k1024);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const bool upper = i / 2 != 0;
    pairs[i] = onto_1024(i % 2 == 0 ? low : low >> 8, upper ? 0x00f000f0u : 0x000f000fu, origin);
    if constexpr (F::kHighBits > 0) {
      const int from = i * F::kHighBits, to = upper ? 8 : 4;
      pairs[i] |= (to >= from ? spread << (to - from) : spread >> (from - to)) & (kMask << to);
    }
  }
}

/* A word of four 8-bit numbers: e4m3 / 256, or 1024 + 128 + integers. */
template <typename F>
__device__ __forceinline__ void unpack_bytes(uint32_t &first, uint32_t &second, uint32_t word) {
  if constexpr (F::kScales == Scales::kFloat) { /* sign, exponent and mantissa of e4m3 to those of f16, whose exponent counts from 8 more */
    const uint32_t low = __byte_perm(word, 0, 0x1404), high = __byte_perm(word, 0, 0x3424);
    first = (low & 0x80008000u) | (low >> 1 & 0x3f803f80u);
    second = (high & 0x80008000u) | (high >> 1 & 0x3f803f80u);
  } else {
    word ^= 0x80808080u;
    first = __byte_perm(word, k1024, 0x5150);
    second = __byte_perm(word, k1024, 0x5352);
  }
}

template <typename F>
__device__ __forceinline__ Operands load_operands(const uint8_t *region, int sub) {
  const int lane = threadIdx.x % kWarp;
  Operands out;
  const uint8_t *low = region + sub * F::kLowBytes;
  uint32_t pairs[2][4];
  if constexpr (F::kLowBits == 8) {
    const uint4 words = *reinterpret_cast<const uint4 *>(low + lane * 16);
    unpack_bytes<F>(pairs[0][0], pairs[0][1], words.x);
    unpack_bytes<F>(pairs[1][0], pairs[1][1], words.y);
    unpack_bytes<F>(pairs[0][2], pairs[0][3], words.z);
    unpack_bytes<F>(pairs[1][2], pairs[1][3], words.w);
  } else {
    const uint2 words = *reinterpret_cast<const uint2 *>(low + lane * 8);
    const uint8_t *high_bits = region + F::kHighAt + sub * F::kHighBytes;
    uint32_t high[2] = {};
    if constexpr (F::kHighBits == 1) {
      const uint32_t both = *reinterpret_cast<const uint16_t *>(high_bits + lane * 2);
      high[0] = both & 255, high[1] = both >> 8;
    }
    if constexpr (F::kHighBits == 2) {
      const uint32_t both = *reinterpret_cast<const uint32_t *>(high_bits + lane * 4);
      high[0] = both & 0xffff, high[1] = both >> 16;
    }
    unpack_row<F>(pairs[0], words.x, high[0]);
    unpack_row<F>(pairs[1], words.y, high[1]);
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
#pragma unroll
    for (int i = 0; i < 4; i++) out.a[i / 2][i % 2 * 2 + row] = pairs[row][i];
  }
  return out;
}

/* Where in the share a warp's copies stand: what this lane copies next, and how many bytes of the tile lie from there on. */
template <typename F, bool Turns>
struct QuantizedStream {
  const uint8_t *source;
  int to_next_tile; /* bytes from the warp's last stage of a tile to its first of the next one */
  int to_tile_after; /* the same for the tile after that: gates and the numbers that they multiply take turns */
  int left, left_of_tile, step, steps, tiles;

  static constexpr int kStep = kWarps<F> * kStageBytes<F>;

  /* A warp with `count` stages per tile, from stage `first` on. to_partner: bytes from gates to the numbers that they multiply, or 0. */
  __device__ __forceinline__ QuantizedStream(const void *weights, int64_t tile_stride, int tile_bytes, int first_tile, int tile_count, int first,
                                             int count, int to_partner)
      : step(0), steps(count), tiles(count > 0 ? tile_count : 0) {
    const int lane_bytes = static_cast<int>(threadIdx.x) % kWarp * 16, begin = first * kStageBytes<F> + lane_bytes;
    source = static_cast<const uint8_t *>(weights) + first_tile * tile_stride + begin;
    left = left_of_tile = tile_bytes - begin;
    const int back = (count - 1) * kStep, to_next = static_cast<int>(tile_stride);
    to_next_tile = (to_partner == 0 ? to_next : to_partner) - back;
    to_tile_after = to_next - to_partner - back;
  }

  __device__ __forceinline__ bool active() const { return tiles > 0; }

  /* Copies the next stage to `target`, this lane's place in it; zeros for regions past the last. */
  __device__ __forceinline__ void copy_next(uint32_t target) {
#pragma unroll
    for (int at = 0; at < kStageBytes<F>; at += kWarp * 16) {
      const bool mine = kStageBytes<F> - at >= kWarp * 16 || static_cast<int>(threadIdx.x) % kWarp * 16 < kStageBytes<F> - at;
      if (mine) copy_async_once(target + at, source + at, kStageRegions<F> == 1 || at < left);
    }
    if (++step < steps) {
      source += kStep, left -= kStep;
    } else {
      source += to_next_tile, left = left_of_tile;
      step = 0, tiles--;
      if constexpr (Turns) {
        const int next = to_tile_after;
        to_tile_after = to_next_tile, to_next_tile = next;
      }
    }
  }
};

/* A region of one token, kSixBits: rows g, g + 8 of the lane's two sub-blocks. first_sub: of the region, in x. */
template <typename F>
__device__ __forceinline__ void multiply_region(const uint8_t *region, const PreparedX &x, int first_sub, float (&out)[2]) {
  static_assert(F::kSubs == kColumnTokens && kStageRegions<F> == 1, "A sub-block per column");
  const int lane = threadIdx.x % kWarp, t = lane % 4;
  const uint4 b = x.halves[(first_sub + lane / 4) * 4 + t];
  float own[4] = {};
  const float starts[2] = {x.starts[first_sub + 2 * t], x.starts[first_sub + 2 * t + 1]};
  const float x_sums[2] = {x.sums[first_sub + 2 * t], x.sums[first_sub + 2 * t + 1]};
#pragma unroll
  for (int sub = 0; sub < F::kSubs; sub++) {
    const Operands weights = load_operands<F>(region, sub);
    float c[4] = {starts[0], starts[1], starts[0], starts[1]};
    multiply_add<f16>(c, weights.a[0], b.x, b.y);
    multiply_add<f16>(c, weights.a[1], b.z, b.w);
#pragma unroll
    for (int row = 0; row < 2; row++) own[2 * row + sub % 2] = t == sub / 2 ? c[2 * row + sub % 2] : own[2 * row + sub % 2];
  }
  scale_own<F>(region, own, x_sums, out);
}

/* A stage; the columns are tokens. */
template <typename F, int Columns, bool OneToken>
__device__ __forceinline__ void multiply_stage(const uint8_t *stage, const PreparedX &x, int first_sub, int tokens, const int (&own_token)[Columns],
                                               const int (&sum_tokens)[Columns][2], float (&sums)[Columns][4]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int region = 0; region < kStageRegions<F>; region++) {
    const RegionScales<F> scales(stage + region * F::kRegionBytes);
    float joined[Columns][4] = {};
#pragma unroll
    for (int sub = 0; sub < F::kSubs; sub++) {
      const Operands weights = load_operands<F>(scales.region, sub);
      const int first = (first_sub + region * F::kSubs + sub) * tokens; /* of the sub-block's tokens */
#pragma unroll
      for (int column = 0; column < Columns; column++) {
        const uint4 b = x.halves[(first + own_token[column]) * 4 + lane % 4];
        float c[kStarts<F>][4] = {}, x_sums[2] = {}; /* tensor cores round sums down: they keep short ones */
#pragma unroll
        for (int half = 0; half < kStarts<F>; half++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            if constexpr (F::kScales == Scales::kFloat) continue;
            c[half][i] = OneToken && i % 2 == 1 ? any_number() : x.starts[(first + sum_tokens[column][i % 2]) * kStarts<F> + half];
          }
        }
        if constexpr (F::kScales == Scales::kTwo)
          x_sums[0] = x.sums[first + sum_tokens[column][0]], x_sums[1] = x.sums[first + sum_tokens[column][1]];
        multiply_add<f16>(c[0], weights.a[0], b.x, b.y);
        multiply_add<f16>(c[kStarts<F> - 1], weights.a[1], b.z, b.w);
        scales.template add<OneToken ? 2 : 1>(sub, c, x_sums, scales.kJoinsSubs ? joined[column] : sums[column]);
      }
    }
    if constexpr (RegionScales<F>::kJoinsSubs) {
      const int64_t first = int64_t(first_sub / F::kSubs + region) * tokens;
#pragma unroll
      for (int column = 0; column < Columns; column++) {
        scales.template finish<OneToken ? 2 : 1>(joined[column], reinterpret_cast<const uint2 *>(x.sums) + (first + own_token[column]) * 4 + lane % 4,
                                                 sums[column]);
      }
    }
  }
}

/* out = x * weight^T + bias for `Columns` times 8 tokens at most, or for one. The chunks of `shares` are stages. */
template <typename F, int Columns, bool OneToken>
__global__ void __launch_bounds__(kThreads<F>, Columns == 1 ? kMostWarps / kWarps<F> : 1)
    quantized_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ Joins joins, const __grid_constant__ Shares shares,
                     const __grid_constant__ TileLayout layout, const __grid_constant__ PreparedX rounded) {
  extern __shared__ uint4 shared[];
  let_next_start(); /* a block of the next product then follows each of this one without a pause */
  constexpr bool kSubsAreColumns = OneToken && F::kScales == Scales::kSixBits;
  const Share share(shares);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, tokens = OneToken ? 1 : static_cast<int>(p.tokens);
  const int own_stages = share.chunks > warp ? (share.chunks - warp + kWarps<F> - 1) / kWarps<F> : 0;
  const bool gated = OneToken && joins.gated();
  const int turns = (share.end_tile - share.first_tile) * (gated ? 2 : 1); /* tiles of weights */
  const int to_partner = gated ? static_cast<int>(p.outputs / 2 / kTileRows * layout.stride) : 0;
  QuantizedStream<F, OneToken> stream(p.weight.data, layout.stride, layout.regions * F::kRegionBytes, share.first_tile, turns,
                                      share.first_chunk + warp, own_stages, to_partner);
  uint8_t *const ring = reinterpret_cast<uint8_t *>(shared) + warp * kStages<F, Columns> * kStageBytes<F>;
  const uint32_t copies = shared_address(ring) + lane * 16;
#pragma unroll
  for (int i = 0; i < kStages<F, Columns>; i++) {
    if (stream.active()) stream.copy_next(copies + i * kStageBytes<F>);
    copy_commit();
  }
  const int subs = share.chunks * kStageSubs<F>;
  char *const memory = reinterpret_cast<char *>(shared) + kQuantizedRingBytes<F, Columns>;
  const PreparedX x = place_x<F>(memory, subs, tokens);
  float *const all_partials = reinterpret_cast<float *>(memory + prepared_bytes<F>(subs, tokens)), *partial = all_partials;
  __shared__ float own_undo[Columns == 1 ? kWarps<F> : 1][kColumnTokens];
  __shared__ float own_squares[OneToken ? kWarps<F> : 1];
  __shared__ float norm_factors[kTileRows], gates[kTileRows]; /* of each thread that stores: registers are for the weights */
  if constexpr (OneToken) joins.prefetch(p.inputs);
  wait_for_previous();
  if constexpr (Columns == 1)
    prepare_own_x<F, OneToken>(p, joins, share.first_chunk, own_stages, x, own_undo[warp], &own_squares[OneToken ? warp : 0]);
  else copy_x<F>(rounded, share.first_chunk * kStageSubs<F>, subs, tokens, x);

  /* Columns past the tokens compute the last one once more; they are not stored. */
  int own_token[Columns], sum_tokens[Columns][2];
#pragma unroll
  for (int column = 0; column < Columns; column++) {
    own_token[column] = min(column * kColumnTokens + lane / 4, tokens - 1);
#pragma unroll
    for (int i = 0; i < 2; i++) sum_tokens[column][i] = min(column * kColumnTokens + lane % 4 * 2 + i, tokens - 1);
  }
  int slot = 0;
  for (int turn = 0; turn < turns; turn++) {
    const int tile = share.first_tile + (gated ? turn / 2 : turn);
    const bool adds = OneToken && joins.ending == PS_ADD && shares.sums == nullptr && threadIdx.x < kTileRows;
    const float before = adds ? p.out.data[int64_t(tile) * kTileRows + threadIdx.x] : 0.f; /* asked for early */
    float sums[Columns][4] = {}, own_rows[2] = {};
    for (int stage = 0; stage < own_stages; stage++) {
      copy_wait<kStages<F, Columns> - 1>();
      __syncwarp();
      const uint8_t *const source = ring + slot * kStageBytes<F>;
      const int first_sub = (warp + stage * kWarps<F>)*kStageSubs<F>;
      if constexpr (kSubsAreColumns) multiply_region<F>(source, x, first_sub, own_rows);
      else multiply_stage<F, Columns, OneToken>(source, x, first_sub, tokens, own_token, sum_tokens, sums);
      __syncwarp(); /* all lanes have read the stage that is copied over now */
      if (stream.active()) stream.copy_next(copies + slot * kStageBytes<F>);
      copy_commit();
      slot = slot + 1 == kStages<F, Columns> ? 0 : slot + 1;
    }
    /* partial [warps, tokens, kSumStride] */
    const int warp_sums = tokens * kSumStride;
    if constexpr (Columns == 1) partial = all_partials + turn % 2 * kWarps<F> * warp_sums;
    if constexpr (kSubsAreColumns) {
#pragma unroll
      for (int row = 0; row < 2; row++) {
        float sum = own_rows[row];
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        if (lane % 4 == 0) partial[warp * warp_sums + lane / 4 + row * 8] = sum * own_undo[warp][0];
      }
    } else {
#pragma unroll
      for (int column = 0; column < Columns; column++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int token = column * kColumnTokens + lane % 4 * 2 + i % 2;
          if (token >= tokens || (OneToken && i % 2 == 1)) continue;
          const float undo = Columns == 1 ? own_undo[warp][token] : x.undo[token];
          partial[warp * warp_sums + token * kSumStride + lane / 4 + i / 2 * 8] = sums[column][i] * undo;
        }
      }
    }
    __syncthreads();
    for (int place = threadIdx.x; place < tokens * kTileRows; place += kThreads<F>) {
      const int token = place / kTileRows, row = place % kTileRows;
      const int64_t n = int64_t(tile) * kTileRows + row;
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps<F>; w++) total += partial[w * warp_sums + token * kSumStride + row];
      if constexpr (OneToken) {
        if (turn == 0) norm_factors[row] = norm_scale<kWarps<F>>(joins, own_squares, p.inputs);
        total *= norm_factors[row];
      }
      if (gated) {
        const bool second = turn % 2 != 0;
        const float own = total + bias_at(p.bias, second ? p.outputs / 2 + n : n);
        if (second) p.out.data[n] = activate(joins.ending, gates[row]) * own;
        else gates[row] = own;
      } else if (shares.sums == nullptr) p.out.row(token)[n] = before + (total + bias_at(p.bias, n));
      else shares.sums[(int64_t(blockIdx.y) * tokens + token) * p.outputs + n] = total;
    }
    if constexpr (Columns > 1) __syncthreads(); /* `partial` is free again */
  }
}

}  // namespace ps
