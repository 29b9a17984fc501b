/* The product of a few tokens with weights in blocks: 1 to 16 tokens on tensor cores, every weight read once. Bound by the bytes of the
 * weights.
 *
 * A block takes a share of the tiles (16 outputs) and, where x does not fit, of the inputs (add_splits.cuh then adds up). It rounds its x
 * to f16 once, each token times a power of two, into shared memory. Its warps share out the inputs of each tile; every warp copies whole
 * stages of weights, which lie one behind the other (quantized.cuh), into a ring of its own, across tiles and before the previous kernel is
 * done: no operation that runs beside it writes weights. Weights become f16 in registers: bits become the exact integer that they stand
 * for, which is multiplied by its scale and rounded once. At the end of a tile the block adds up what its warps found, in order. */
#pragma once

#include "add_splits.cuh"
#include "matvec_split.cuh"
#include "mma.cuh"
#include "matmul_quantized.h"
#include "quantized.cuh"

namespace ps {

constexpr int kColumnTokens = 8;     /* columns of an instruction */

/* How much of the inputs a warp copies at once: at least 1 KiB. */
template <typename F>
constexpr int kStageRegions = F::kRegionBytes >= 1024  ? 1
                              : F::kRegionBytes >= 512 ? 2
                                                       : 4;
template <typename F>
constexpr int kStageBytes = kStageRegions<F> * F::kRegionBytes;
template <typename F>
constexpr int kStageSubs = kStageRegions<F> * F::kSubs;
/* Stages in a warp's ring. Of few tokens two blocks fit a multiprocessor; of many x takes the room. */
template <typename F, int Columns>
constexpr int kStages = Columns > 1 || kStageBytes<F> > 2304 ? 2 : 4608 / kStageBytes<F>;

/* Warps of a block. Wide stages take fewer, for then more blocks fit a multiprocessor; kMostWarps are wanted there in all. */
template <typename F>
constexpr int kWarps = kStageBytes<F> > 2304 ? 8 : 16;
template <typename F>
constexpr int kThreads = kWarps<F> * kWarp;
constexpr int kMostWarps = 32;

/* How the tiles of a weight in blocks lie. */
struct TileLayout {
  int64_t stride; /* bytes from one tile to the next */
  int regions;    /* of a tile */
};

/* Shared memory, in this order: rings; x [sub-blocks, tokens, 4 lanes, 8] f16; what undoes the scale of each token; sums of the warps, twice
 * where a tile may be added up while the next one is begun. */
constexpr int kXBytes = kSubBlock * 2;
constexpr int kSumStride = kTileRows + 4; /* floats of a token: no bank conflicts */
PS_HOST_DEVICE constexpr int64_t quantized_x_bytes(int64_t subs, int64_t tokens) { return subs * tokens * kXBytes; }
constexpr int64_t kUndoBytes = kQuantizedTokens * 4;
template <typename F, int Columns>
constexpr int64_t quantized_sum_bytes(int64_t tokens) {
  return (Columns == 1 ? 2 : 1) * kWarps<F> * tokens * kSumStride * 4;
}
template <typename F, int Columns>
constexpr int64_t kQuantizedRingBytes = int64_t(kWarps<F>) * kStages<F, Columns> * kStageBytes<F>;

__device__ __forceinline__ __half2 as_halves(uint32_t bits) { return reinterpret_cast<const __half2 &>(bits); }
__device__ __forceinline__ uint32_t as_bits(__half2 halves) { return reinterpret_cast<const uint32_t &>(halves); }

/* x as f16: each token times a power of two that brings its largest number to [2^14, 2^15), for f16 holds few exponents. */
struct ScaledX {
  const MatmulParams &p;
  const bool aligned;

  __device__ __forceinline__ explicit ScaledX(const MatmulParams &params)
      : p(params), aligned(reinterpret_cast<uintptr_t>(p.x.data) % 16 == 0 && (p.tokens == 1 || p.x.stride % 4 == 0)) {}

  __device__ __forceinline__ float4 four(int64_t token, int64_t k) const {
    const float *source = p.x.row(token) + k;
    return aligned ? *reinterpret_cast<const float4 *>(source) : float4{source[0], source[1], source[2], source[3]};
  }

  static __device__ __forceinline__ uint32_t largest_of(const float4 &v) {
    return max(max(__float_as_uint(fabsf(v.x)), __float_as_uint(fabsf(v.y))), max(__float_as_uint(fabsf(v.z)), __float_as_uint(fabsf(v.w))));
  }

  /* Bits of the largest of inputs [begin, end) that the warp's threads see, the same in all lanes; that of NaN is the largest. */
  __device__ __forceinline__ uint32_t largest_bits(int64_t token, int64_t begin, int64_t end) const {
    uint32_t bits = 0;
    for (int64_t k = begin + threadIdx.x * 4; k < end; k += blockDim.x * 4) {
      bits = max(bits, largest_of(four(token, k)));
    }
    return __reduce_max_sync(kAllLanes, bits);
  }

  /* Inputs 4t on and 16 + 4t on of a sub-block as lane t takes them, in the order of unpack_row or unpack_bytes. */
  template <typename F>
  static __device__ __forceinline__ uint4 arrange(const float4 &a, const float4 &b, float factor) {
    const auto pair = [&](float first, float second) { return as_bits(__floats2half2_rn(first * factor, second * factor)); };
    if constexpr (F::kLowBits == 8) return {pair(a.x, a.y), pair(a.z, a.w), pair(b.x, b.y), pair(b.z, b.w)};
    else return {pair(a.x, a.z), pair(a.y, a.w), pair(b.x, b.z), pair(b.y, b.w)};
  }

  /* The same of the sub-block from input k on; zeros past the last input. */
  template <typename F>
  __device__ __forceinline__ uint4 piece(int64_t token, int64_t k, int t, float factor) const {
    if (k >= p.inputs) return {};
    return arrange<F>(four(token, k + 4 * t), four(token, k + 16 + 4 * t), factor);
  }
};

/* x that a kernel before has rounded, for more than kColumnTokens tokens: halves [sub-blocks, tokens, 4 lanes, 8]. */
struct RoundedX {
  const uint4 *halves; /* nullptr: each block rounds its own */
  const float *undo;   /* [tokens] */
};

template <typename F>
constexpr int kOwnPieces = 48 / kWarps<F>; /* 12,288 inputs */

/* Puts the share's x into shared memory. Ends with a barrier. */
template <typename F>
__device__ __forceinline__ void prepare_x(const MatmulParams &p, const RoundedX &rounded, int first_sub, int subs, uint4 *x, float *undo) {
  __shared__ uint32_t largest[kColumnTokens];
  const int tokens = static_cast<int>(p.tokens), thread = threadIdx.x, pieces = subs * tokens * 4;
  if (rounded.halves != nullptr) {
    if (thread < tokens) undo[thread] = rounded.undo[thread];
    const uint4 *source = rounded.halves + int64_t(first_sub) * tokens * 4;
#pragma unroll 4
    for (int piece = thread; piece < pieces; piece += kThreads<F>) x[piece] = source[piece];
    __syncthreads();
    return;
  }
  if (thread < tokens) largest[thread] = 0;
  __syncthreads();
  const ScaledX source(p);
  const int64_t begin = int64_t(first_sub) * kSubBlock, end = min(begin + int64_t(subs) * kSubBlock, p.inputs);
  if (tokens == 1 && pieces <= kOwnPieces<F> * kThreads<F>) { /* each thread keeps what it has read */
    float4 own[kOwnPieces<F>][2];
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kOwnPieces<F>; i++) {
      const int64_t k = begin + (i * kThreads<F> + thread) / 4 * kSubBlock + thread % 4 * 4;
      const bool valid = k < end;
      own[i][0] = valid ? source.four(0, k) : float4{}, own[i][1] = valid ? source.four(0, k + 16) : float4{};
      bits = max(bits, max(ScaledX::largest_of(own[i][0]), ScaledX::largest_of(own[i][1])));
    }
    bits = __reduce_max_sync(kAllLanes, bits);
    if (thread % kWarp == 0) atomicMax(&largest[0], bits);
    __syncthreads();
    const float scale = f16_scale(largest[0]);
    if (thread == 0) undo[0] = undo_f16_scale(largest[0]);
#pragma unroll
    for (int i = 0; i < kOwnPieces<F>; i++) {
      const int piece = i * kThreads<F> + thread;
      if (piece < pieces) x[piece] = ScaledX::arrange<F>(own[i][0], own[i][1], scale);
    }
    __syncthreads();
    return;
  }
  for (int token = 0; token < tokens; token++) {
    const uint32_t bits = source.largest_bits(token, begin, end);
    if (thread % kWarp == 0) atomicMax(&largest[token], bits);
  }
  __syncthreads();
  if (thread < tokens) undo[thread] = undo_f16_scale(largest[thread]);
  for (int piece = thread; piece < pieces; piece += kThreads<F>) {
    const int token = piece / 4 % tokens;
    x[piece] = source.piece<F>(token, begin + piece / 4 / tokens * kSubBlock, piece % 4, f16_scale(largest[token]));
  }
  __syncthreads();
}

constexpr uint32_t k1024 = 0x64006400u; /* two f16 of 1024, whose last bits count ones */

/* What the numbers of rows g (low half) and g + 8 (high half) are multiplied by, in the first and in the last 16 inputs of a sub-block, and
 * what is added then. */
struct PairScale {
  __half2 d[2], m;
};

/* Unsigned bytes `index` of two words as f16. */
__device__ __forceinline__ __half2 byte_pair(uint32_t first, uint32_t second, int index) {
  const uint32_t both = __byte_perm(first, second, index | (index + 4) << 4);
  return __hadd2(as_halves(__byte_perm(both, k1024, 0x5150)), __float2half2_rn(-1024.f));
}

/* The scales of a region's rows g and g + 8. */
template <typename F>
struct RegionScales {
  __half2 d, m;
  uint32_t scales[2][2], minima[2][2]; /* kSixBits: bytes of sub-blocks 0 to 3 and 4 to 7, of either row */

  __device__ __forceinline__ explicit RegionScales(const uint8_t *region) {
    const int g = threadIdx.x % kWarp / 4;
    if constexpr (F::kScales == Scales::kFloat) {
      const float2 both = *reinterpret_cast<const float2 *>(region + F::kScalesAt + g * 8);
      d = __floats2half2_rn(both.x * 256.f, both.y * 256.f);
    } else if constexpr (F::kScales == Scales::kOne || F::kScales == Scales::kPerHalf) {
      d = *reinterpret_cast<const __half2 *>(region + kHalvesAt<F> + g * 4);
    } else {
      const uint2 bits = *reinterpret_cast<const uint2 *>(region + kHalvesAt<F> + g * 8);
      d = as_halves(bits.x), m = as_halves(bits.y);
    }
    if constexpr (F::kScales == Scales::kSixBits) {
      m = __hneg2(m);
      const uint2 *words = reinterpret_cast<const uint2 *>(region + F::kScalesAt + g * 24);
      const uint32_t q[6] = {words[0].x, words[0].y, words[1].x, words[1].y, words[2].x, words[2].y};
#pragma unroll
      for (int row = 0; row < 2; row++) {
        const uint32_t *own = q + row * 3;
        scales[row][0] = own[0] & 0x3f3f3f3fu, scales[row][1] = (own[2] & 0x0f0f0f0fu) | (own[0] >> 2 & 0x30303030u);
        minima[row][0] = own[1] & 0x3f3f3f3fu, minima[row][1] = (own[2] >> 4 & 0x0f0f0f0fu) | (own[1] >> 2 & 0x30303030u);
      }
    }
  }

  __device__ __forceinline__ PairScale of(const uint8_t *region, int sub) const {
    PairScale out;
    if constexpr (F::kScales == Scales::kSixBits) {
      out.d[0] = out.d[1] = __hmul2(d, byte_pair(scales[0][sub / 4], scales[1][sub / 4], sub % 4));
      out.m = __hmul2(m, byte_pair(minima[0][sub / 4], minima[1][sub / 4], sub % 4));
    } else if constexpr (F::kScales == Scales::kPerHalf) { /* bytes: g first, g last, g + 8 first, g + 8 last */
      const uint32_t four = *reinterpret_cast<const uint32_t *>(region + F::kScalesAt + (sub * 8 + threadIdx.x % kWarp / 4) * 4) ^ 0x80808080u;
      const __half2 offset = __float2half2_rn(-1152.f);
      out.d[0] = __hmul2(d, __hadd2(as_halves(__byte_perm(four, k1024, 0x5250)), offset));
      out.d[1] = __hmul2(d, __hadd2(as_halves(__byte_perm(four, k1024, 0x5351)), offset));
    } else {
      out.d[0] = out.d[1] = d, out.m = m;
    }
    return out;
  }
};

/* Two rows' eight numbers of a sub-block as operands of two products over 16 inputs. */
struct Operands {
  uint32_t a[2][4];
};

/* pairs [4]: exact integers (e4m3 numbers / 256) as f16, two of the first 16 inputs, two of the last 16. */
template <typename F>
__device__ __forceinline__ void scale_row(Operands &out, int row, const __half2 (&pairs)[4], const PairScale &scale) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    constexpr bool kAdds = F::kScales == Scales::kTwo || F::kScales == Scales::kSixBits;
    const __half2 d = row == 0 ? __low2half2(scale.d[i / 2]) : __high2half2(scale.d[i / 2]);
    const __half2 m = row == 0 ? __low2half2(scale.m) : __high2half2(scale.m);
    out.a[i / 2][i % 2 * 2 + row] = as_bits(kAdds ? __hfma2(pairs[i], d, m) : __hmul2(pairs[i], d));
  }
}

/* A row's 4-bit words with their high bits: inputs 4t, 4t + 2; 4t + 1, 4t + 3; and the same of the last 16. */
template <typename F>
__device__ __forceinline__ void unpack_row(__half2 (&pairs)[4], uint32_t low, uint32_t high) {
  const uint32_t spread = F::kHighBits == 1 ? high * 0x1001u : F::kHighBits == 2 ? __byte_perm(high, 0, 0x4140) : 0; /* second halves to bit 16 on */
  constexpr uint32_t kMask = F::kHighBits == 2 ? 0x00030003u : 0x00010001u;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const bool upper = i / 2 != 0; /* four bits higher: the number times 16 */
    uint32_t bits = (i % 2 == 0 ? low : low >> 8) & (upper ? 0x00f000f0u : 0x000f000fu);
    if constexpr (F::kHighBits > 0) {
      const int from = i * F::kHighBits, to = upper ? 8 : 4;
      bits |= (to >= from ? spread << (to - from) : spread >> (from - to)) & (kMask << to);
    }
    bits |= k1024;
    if (upper) pairs[i] = __hfma2(as_halves(bits), __float2half2_rn(1 / 16.f), __float2half2_rn(-64.f - F::kOffset));
    else pairs[i] = __hadd2(as_halves(bits), __float2half2_rn(-1024.f - F::kOffset));
  }
}

/* A word of four 8-bit numbers. */
template <typename F>
__device__ __forceinline__ void unpack_bytes(__half2 &first, __half2 &second, uint32_t word) {
  if constexpr (F::kScales == Scales::kFloat) { /* sign, exponent and mantissa of e4m3 to those of f16, whose exponent counts from 8 more */
    const uint32_t low = __byte_perm(word, 0, 0x1404), high = __byte_perm(word, 0, 0x3424);
    first = as_halves((low & 0x80008000u) | (low >> 1 & 0x3f803f80u));
    second = as_halves((high & 0x80008000u) | (high >> 1 & 0x3f803f80u));
  } else {
    word ^= 0x80808080u;
    first = __hadd2(as_halves(__byte_perm(word, k1024, 0x5150)), __float2half2_rn(-1152.f));
    second = __hadd2(as_halves(__byte_perm(word, k1024, 0x5352)), __float2half2_rn(-1152.f));
  }
}

template <typename F>
__device__ __forceinline__ Operands load_operands(const uint8_t *region, int sub, const RegionScales<F> &scales) {
  const int lane = threadIdx.x % kWarp;
  Operands out;
  const uint8_t *low = region + sub * F::kLowBytes;
  const PairScale scale = scales.of(region, sub);
  __half2 pairs[2][4];
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
  for (int row = 0; row < 2; row++) scale_row<F>(out, row, pairs[row], scale);
  return out;
}

/* Where in the share a warp's copies stand: what this lane copies next, and how many bytes of the tile lie from there on. */
template <typename F>
struct QuantizedStream {
  const uint8_t *source;
  int64_t to_next_tile; /* from the warp's last stage of a tile to its first of the next one */
  int left, left_of_tile, step, steps, tiles;

  static constexpr int kStep = kWarps<F> * kStageBytes<F>;

  /* A warp with `count` stages per tile, from stage `first` on. */
  __device__ __forceinline__ QuantizedStream(const void *weights, int64_t tile_stride, int tile_bytes, int first_tile, int tile_count, int first,
                                             int count)
      : step(0), steps(count), tiles(count > 0 ? tile_count : 0) {
    const int lane_bytes = static_cast<int>(threadIdx.x) % kWarp * 16, begin = first * kStageBytes<F> + lane_bytes;
    source = static_cast<const uint8_t *>(weights) + first_tile * tile_stride + begin;
    left = left_of_tile = tile_bytes - begin;
    to_next_tile = tile_stride - int64_t(count - 1) * kStep;
  }

  __device__ __forceinline__ bool active() const { return tiles > 0; }

  /* Copies the next stage to `target`, this lane's place in it; zeros for regions past the last. */
  __device__ __forceinline__ void copy_next(uint32_t target) {
#pragma unroll
    for (int at = 0; at < kStageBytes<F>; at += kWarp * 16) {
      const bool mine = kStageBytes<F> - at >= kWarp * 16 || static_cast<int>(threadIdx.x) % kWarp * 16 < kStageBytes<F> - at;
      if (mine) copy_async(target + at, source + at, kStageRegions<F> == 1 || at < left);
    }
    if (++step < steps) {
      source += kStep, left -= kStep;
    } else {
      source += to_next_tile, left = left_of_tile;
      step = 0, tiles--;
    }
  }
};

/* out = x * weight^T + bias for `Columns` times 8 tokens at most. The chunks of `shares` are stages. */
template <typename F, int Columns>
__global__ void __launch_bounds__(kThreads<F>, Columns == 1 ? kMostWarps / kWarps<F> : 1)
    quantized_kernel(const __grid_constant__ MatmulParams p, const __grid_constant__ Shares shares, const __grid_constant__ TileLayout layout,
                     const __grid_constant__ RoundedX rounded) {
  extern __shared__ uint4 shared[];
  const Share share(shares);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, tokens = static_cast<int>(p.tokens);
  const int own_stages = share.chunks > warp ? (share.chunks - warp + kWarps<F> - 1) / kWarps<F> : 0;
  QuantizedStream<F> stream(p.weight.data, layout.stride, layout.regions * F::kRegionBytes, share.first_tile, share.end_tile - share.first_tile,
                            share.first_chunk + warp, own_stages);
  uint8_t *const ring = reinterpret_cast<uint8_t *>(shared) + warp * kStages<F, Columns> * kStageBytes<F>;
  const uint32_t copies = shared_address(ring) + lane * 16;
#pragma unroll
  for (int i = 0; i < kStages<F, Columns>; i++) {
    if (stream.active()) stream.copy_next(copies + i * kStageBytes<F>);
    copy_commit();
  }
  const int subs = share.chunks * kStageSubs<F>;
  uint8_t *const x = reinterpret_cast<uint8_t *>(shared) + kQuantizedRingBytes<F, Columns>;
  float *const undo = reinterpret_cast<float *>(x + quantized_x_bytes(subs, tokens));
  float *partial = undo + kQuantizedTokens;
  wait_for_previous();
  prepare_x<F>(p, rounded, share.first_chunk * kStageSubs<F>, subs, reinterpret_cast<uint4 *>(x), undo);

  /* Columns past the tokens compute the last one once more; they are not stored. */
  uint32_t own_x[Columns];
#pragma unroll
  for (int column = 0; column < Columns; column++) own_x[column] = min(column * kColumnTokens + lane / 4, tokens - 1) * kXBytes + lane % 4 * 16;
  int slot = 0;
  for (int tile = share.first_tile; tile < share.end_tile; tile++) {
    float sums[Columns][4] = {};
    const uint8_t *at_x = x + warp * (kStageSubs<F> * kXBytes) * tokens;
    for (int stage = 0; stage < own_stages; stage++, at_x += (kWarps<F> - 1) * kStageSubs<F> * kXBytes * tokens) {
      copy_wait<kStages<F, Columns> - 1>();
      __syncwarp();
      const uint8_t *const source = ring + slot * kStageBytes<F>;
      float added[Columns][4] = {}; /* tensor cores round sums down: they keep short ones */
#pragma unroll
      for (int region = 0; region < kStageRegions<F>; region++) {
        const uint8_t *const at = source + region * F::kRegionBytes;
        const RegionScales<F> scales(at);
#pragma unroll
        for (int sub = 0; sub < F::kSubs; sub++) {
          const Operands weights = load_operands<F>(at, sub, scales);
#pragma unroll
          for (int column = 0; column < Columns; column++) {
            const uint4 b = *reinterpret_cast<const uint4 *>(at_x + own_x[column]);
            multiply_add<f16>(added[column], weights.a[0], b.x, b.y);
            multiply_add<f16>(added[column], weights.a[1], b.z, b.w);
          }
          at_x += kXBytes * tokens;
        }
      }
#pragma unroll
      for (int column = 0; column < Columns; column++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[column][i] += added[column][i];
      }
      __syncwarp(); /* all lanes have read the stage that is copied over now */
      if (stream.active()) stream.copy_next(copies + slot * kStageBytes<F>);
      else let_next_start();
      copy_commit();
      slot = slot + 1 == kStages<F, Columns> ? 0 : slot + 1;
    }
    /* partial [warps, tokens, kSumStride] */
    const int warp_sums = tokens * kSumStride;
    if constexpr (Columns == 1) partial = undo + kQuantizedTokens + (tile - share.first_tile) % 2 * kWarps<F> * warp_sums;
#pragma unroll
    for (int column = 0; column < Columns; column++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = column * kColumnTokens + lane % 4 * 2 + i % 2;
        if (token < tokens) partial[warp * warp_sums + token * kSumStride + lane / 4 + i / 2 * 8] = sums[column][i];
      }
    }
    __syncthreads();
    for (int place = threadIdx.x; place < tokens * kTileRows; place += kThreads<F>) {
      const int token = place / kTileRows, row = place % kTileRows;
      const int64_t n = int64_t(tile) * kTileRows + row;
      float total = 0;
#pragma unroll
      for (int w = 0; w < kWarps<F>; w++) total += partial[w * warp_sums + token * kSumStride + row];
      total *= undo[token];
      if (shares.sums == nullptr) p.out.row(token)[n] = total + bias_at(p.bias, n);
      else shares.sums[(int64_t(blockIdx.y) * tokens + token) * p.outputs + n] = total;
    }
    if constexpr (Columns > 1) __syncthreads(); /* `partial` is free again */
  }
}

}  // namespace ps
