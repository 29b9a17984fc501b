/* Products of small integers, four to a lane. Sums are exact, so every instruction set gives the same bits. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

typedef uint8_t VecBytes __attribute__((vector_size(kLanes * 4)));
constexpr int kVecBytes = kLanes * 4;

/* Whether one instruction multiplies bytes and adds four products up. That of x86 takes unsigned times signed ones: bytes of -128 to 127 are
 * multiplied as 0 to 255, and 128 times the sum of x is taken off. */
#if defined(__AVX512VNNI__)
constexpr bool kMultipliesBytes = true, kSignedAsOffset = true;
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr bool kMultipliesBytes = true, kSignedAsOffset = false;
#else
constexpr bool kMultipliesBytes = false, kSignedAsOffset = false;
#endif

PS_INLINE VecInt set1_int(int32_t value) { return value - VecInt{}; }

PS_INLINE VecBytes load_bytes(const uint8_t *p) {
  VecBytes v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/* Four bytes in every lane. */
PS_INLINE VecBytes repeat_four(const int8_t *p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return (VecBytes)set1_int(four);
}

PS_INLINE Vec to_floats(VecInt v) { return __builtin_convertvector(v, Vec); }

/* kLanes bytes as integers. */
PS_INLINE VecInt widen_bytes(const uint8_t *p) {
#if defined(__AVX512F__)
  return (VecInt)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
#elif defined(__AVX2__)
  return (VecInt)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
#elif defined(__ARM_NEON)
  return (VecInt)widen_bits(widen_bits(load_narrow(p)));
#else
  typedef uint8_t Narrow __attribute__((vector_size(kLanes)));
  Narrow bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, VecInt);
#endif
}
PS_INLINE VecInt widen_signed_bytes(const uint8_t *p) { return (widen_bytes(p) << 24) >> 24; }

/* Every bit of the first kVecBytes ones from p on becomes a byte: `bit` or 0. */
PS_INLINE VecBytes spread_bits(const uint8_t *p, uint8_t bit) {
#if defined(__AVX512BW__)
  uint64_t mask;
  __builtin_memcpy(&mask, p, sizeof mask);
  return (VecBytes)_mm512_maskz_set1_epi8(mask, static_cast<char>(bit));
#elif defined(__AVX2__)
  int32_t mask;
  __builtin_memcpy(&mask, p, sizeof mask);
  const __m256i places = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bits = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(mask), places);
  return (VecBytes)_mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits), _mm256_set1_epi8(static_cast<char>(bit)));
#elif defined(__ARM_NEON)
  const uint8x16_t places = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  return (VecBytes)vandq_u8(vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), places), vdupq_n_u8(bit));
#else
  constexpr uint64_t kOnes = 0x0101010101010101;
  uint64_t words[kVecBytes / 8];
  for (int i = 0; i < kVecBytes / 8; i++) {
    const uint64_t own = p[i] * kOnes & 0x8040201008040201; /* byte j keeps bit j; whichever that is becomes its highest */
    words[i] = ((own + 0x7f * kOnes) >> 7 & kOnes) * bit;
  }
  return load_bytes(reinterpret_cast<const uint8_t *>(words));
#endif
}

/* sum + of `Count` vectors w of levels below 2^Bits (8: signed bytes), each times four bytes of x that every lane shares; |x| <= 127. */
template <int Bits, int Count>
#if defined(__AVX2__) || defined(__ARM_NEON)
PS_INLINE
#else
static __attribute__((noinline)) /* takes many instructions */
#endif
    VecInt dot(const VecBytes *w, const int8_t *x, VecInt sum) {
#if defined(__AVX512VNNI__)
  PS_UNROLL
  for (int k = 0; k < Count; k++) sum = (VecInt)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w[k], (__m512i)repeat_four(x + 4 * k));
  return sum;
#elif defined(__AVX2__)
  /* Pairs are added up in 16 bits as long as they fit: 2 * 127 * (2^Bits - 1) each, or 2 * 127 * 128. */
  constexpr int kTogether = Bits == 8 ? 1 : 1 << (7 - Bits) < Count ? 1 << (7 - Bits) : Count;
  PS_UNROLL
  for (int k = 0; k < Count; k += kTogether) {
#if defined(__AVX512BW__)
    __m512i pairs = _mm512_setzero_si512();
    PS_UNROLL
    for (int j = k; j < k + kTogether; j++) {
      __m512i levels = (__m512i)w[j], numbers = (__m512i)repeat_four(x + 4 * j);
      if constexpr (Bits == 8) {
        numbers = _mm512_mask_sub_epi8(numbers, _mm512_movepi8_mask(levels), _mm512_setzero_si512(), numbers);
        levels = _mm512_abs_epi8(levels);
      }
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(levels, numbers));
    }
    sum += (VecInt)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#else
    __m256i pairs = _mm256_setzero_si256();
    PS_UNROLL
    for (int j = k; j < k + kTogether; j++) {
      __m256i levels = (__m256i)w[j], numbers = (__m256i)repeat_four(x + 4 * j);
      if constexpr (Bits == 8) {
        numbers = _mm256_sign_epi8(numbers, levels);
        levels = _mm256_abs_epi8(levels);
      }
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(levels, numbers));
    }
    sum += (VecInt)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#endif
  }
  return sum;
#elif defined(__ARM_FEATURE_DOTPROD)
  int32x4_t total = (int32x4_t)sum;
  PS_UNROLL
  for (int k = 0; k < Count; k += 4) {
    const int8x16_t numbers = vld1q_s8(x + 4 * k);
    total = vdotq_laneq_s32(total, (int8x16_t)w[k], numbers, 0);
    total = vdotq_laneq_s32(total, (int8x16_t)w[k + 1], numbers, 1);
    total = vdotq_laneq_s32(total, (int8x16_t)w[k + 2], numbers, 2);
    total = vdotq_laneq_s32(total, (int8x16_t)w[k + 3], numbers, 3);
  }
  return (VecInt)total;
#elif defined(__ARM_NEON)
  int32x4_t total = (int32x4_t)sum;
  PS_UNROLL
  for (int k = 0; k < Count; k++) {
    const int8x16_t levels = (int8x16_t)w[k], numbers = (int8x16_t)repeat_four(x + 4 * k);
    const int16x8_t low = vmull_s8(vget_low_s8(levels), vget_low_s8(numbers)), high = vmull_high_s8(levels, numbers);
    total = vaddq_s32(total, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
  }
  return (VecInt)total;
#elif defined(__SSE2__)
  __m128i sums[2];
  __builtin_memcpy(sums, &sum, sizeof sums);
  const __m128i low_bytes = _mm_set1_epi16(0xff);
  PS_UNROLL
  for (int k = 0; k < Count; k++) {
    __m128i halves[2];
    __builtin_memcpy(halves, w + k, sizeof halves);
    const int8_t *four = x + 4 * k;
    const __m128i even_x = _mm_set1_epi32((four[0] & 0xffff) | int32_t(four[2]) * 65536);
    const __m128i odd_x = _mm_set1_epi32((four[1] & 0xffff) | int32_t(four[3]) * 65536);
    PS_UNROLL
    for (int i = 0; i < 2; i++) {
      const __m128i even = Bits == 8 ? _mm_srai_epi16(_mm_slli_epi16(halves[i], 8), 8) : _mm_and_si128(halves[i], low_bytes);
      const __m128i odd = Bits == 8 ? _mm_srai_epi16(halves[i], 8) : _mm_srli_epi16(halves[i], 8);
      sums[i] = _mm_add_epi32(sums[i], _mm_add_epi32(_mm_madd_epi16(even, even_x), _mm_madd_epi16(odd, odd_x)));
    }
  }
  __builtin_memcpy(&sum, sums, sizeof sum);
  return sum;
#else
  for (int k = 0; k < Count; k++) {
    const VecInt levels = (VecInt)w[k];
    PS_UNROLL
    for (int i = 0; i < 4; i++) {
      const VecInt level = Bits == 8 ? (levels << (24 - 8 * i)) >> 24 : levels >> 8 * i & 255;
      sum += level * int32_t(x[4 * k + i]);
    }
  }
  return sum;
#endif
}

}  // namespace PS_ISA
}  // namespace ps
