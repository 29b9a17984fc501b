/* Weights in blocks as operands of tensor cores, and the sums of their sub-blocks: what a warp does with a stage of weights and rounded x.
 *
 * Unpacking takes as many instructions as the memory leaves time for, so it does little: the bits of a weight become the last bits of an f16
 * of 1024, and what that adds to a product, 1024 times the sum of x, is where the sum of a sub-block starts, negative. The sum is multiplied
 * by the sub-block's scale in f32. Where two weights share a byte, the upper one counts 16 times, and its x is a sixteenth. Without high bits it
 * stays with the lower one, which then counts twice: the x of the lower one is less by what that adds.
 *
 * A product of one token needs one of an instruction's 8 columns. Where a region has 8 sub-blocks with 6-bit scales, column g then takes the x
 * of sub-block g, and of what the weights of sub-block s give, column s counts: a lane reads x once, and scales two sub-blocks instead of 8. */
#pragma once

#include "mma.cuh"
#include "quantized_x.cuh"

namespace ps {

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

/* Adds a region's sums of one token to those of the tile, kSixBits. c: rows g, g + 8 (i / 2) of sub-blocks 2t, 2t + 1 (i % 2). x_sums: -1024
 * times those of these sub-blocks. out: rows g, g + 8. */
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
    out[row] = fmaf(0x1p-10f * (row == 0 ? m.x : m.y), least, out[row]);
  }
}

/* Two rows' eight numbers of a sub-block as operands of two products over 16 inputs. */
struct Operands {
  uint32_t a[2][4];
};

/* A row's 4-bit words with their high bits: 1024 + inputs 4t, 4t + 2; 4t + 1, 4t + 3; and 1024 + 16 times the same of the last 16, plus, where
 * there are no high bits, the first ones. */
template <typename F>
__device__ __forceinline__ void unpack_row(uint32_t (&pairs)[4], uint32_t low, uint32_t high) {
  if constexpr (F::kHighBits == 0) {
    pairs[2] = __byte_perm(low, k1024, 0x5250), pairs[3] = __byte_perm(low, k1024, 0x5351);
    pairs[0] = pairs[2] & 0xff0fff0fu, pairs[1] = pairs[3] & 0xff0fff0fu;
  } else {
    const uint32_t spread = F::kHighBits == 1 ? high * 0x1001u : __byte_perm(high, 0, 0x4140); /* second halves to bit 16 on */
    constexpr uint32_t kMask = F::kHighBits == 2 ? 0x00030003u : 0x00010001u;
    const uint32_t origin = in_register(k1024);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool upper = i / 2 != 0;
      const int from = i * F::kHighBits, to = upper ? 8 : 4;
      pairs[i] = onto_1024(i % 2 == 0 ? low : low >> 8, upper ? 0x00f000f0u : 0x000f000fu, origin);
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

/* A region of one token, kSixBits: rows g, g + 8 of the lane's two sub-blocks. first_sub: of the region, in x. */
template <typename F>
__device__ __forceinline__ void multiply_region(const uint8_t *region, const PreparedX &x, int first_sub, float (&out)[2]) {
  static_assert(F::kSubs == kColumnTokens && kStageRegions<F> == 1, "A sub-block per column");
  const int lane = threadIdx.x % kWarp, t = lane % 4;
  const uint4 b = x.halves[(first_sub + lane / 4) * 4 + t];
  float own[4] = {};
  const float2 starts = *reinterpret_cast<const float2 *>(x.starts + first_sub + 2 * t);
  const float2 x_sums = *reinterpret_cast<const float2 *>(x.sums + first_sub + 2 * t);
#pragma unroll
  for (int sub = 0; sub < F::kSubs; sub++) {
    const Operands weights = load_operands<F>(region, sub);
    float c[4] = {starts.x, starts.y, starts.x, starts.y};
    multiply_add<f16>(c, weights.a[0], b.x, b.y);
    multiply_add<f16>(c, weights.a[1], b.z, b.w);
#pragma unroll
    for (int row = 0; row < 2; row++) own[2 * row + sub % 2] = t == sub / 2 ? c[2 * row + sub % 2] : own[2 * row + sub % 2];
  }
  scale_own<F>(region, own, {x_sums.x, x_sums.y}, out);
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

}  // namespace ps
