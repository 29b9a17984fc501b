/* A vector of floats, as wide as in the instruction set that the including file is compiled for. It uses the vector extension of g++ and
 * clang, so that one source compiles for AVX-512, AVX2, NEON and plain C++. Everything is static and in a separate namespace
 * (PS_ISA): the linker must never merge code of two instruction sets. */
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "../numbers.h"

/* For a loop over an array that must stay in registers: without unrolling, the compilers store the array in memory. */
#if defined(__clang__)
#define PS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PS_UNROLL _Pragma("GCC unroll 16")
#endif

#define PS_INLINE static inline __attribute__((always_inline))

namespace ps {
namespace PS_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__ARM_NEON)
constexpr int kLanes = 4; /* g++ keeps vectors that take two registers in memory */
#else
constexpr int kLanes = 8;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t VecInt __attribute__((vector_size(kLanes * 4)));
typedef uint32_t VecBits __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VecHalf __attribute__((vector_size(kLanes * 2)));

PS_INLINE Vec set1(float value) { return value - Vec{}; }
PS_INLINE Vec load(const float *p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PS_INLINE void store(float *p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

/* The compilers translate the generic conversion to several instructions where one suffices. */
PS_INLINE VecBits widen_bits(VecHalf half) {
#if defined(__AVX512F__)
  return (VecBits)_mm512_cvtepu16_epi32((__m256i)half);
#elif defined(__AVX2__)
  return (VecBits)_mm256_cvtepu16_epi32((__m128i)half);
#elif defined(__ARM_NEON)
  return (VecBits)vmovl_u16((uint16x4_t)half);
#else
  return __builtin_convertvector(half, VecBits);
#endif
}

PS_INLINE Vec widen_bf16(VecHalf half) { return (Vec)(widen_bits(half) << 16); }

PS_INLINE Vec widen_f16(VecHalf half) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps((__m256i)half);
#elif defined(__F16C__)
  return (Vec)_mm256_cvtph_ps((__m128i)half);
#elif defined(__ARM_NEON)
  return (Vec)vcvt_f32_f16((float16x4_t)half);
#else
  const VecBits bits = widen_bits(half);
  const VecBits magnitude = (bits & 0x7fffu) << 13;
  const VecBits finite = (VecBits)((Vec)magnitude * 0x1p112f);
  const VecBits special = (VecBits)(magnitude >= 0x0f800000u);
  return (Vec)((special & (magnitude | 0x7f800000u)) | (~special & finite) | (bits & 0x8000u) << 16);
#endif
}

PS_INLINE Vec load(const bf16 *p) {
  VecHalf half;
  __builtin_memcpy(&half, p, sizeof half);
  return widen_bf16(half);
}
PS_INLINE Vec load(const f16 *p) {
  VecHalf half;
  __builtin_memcpy(&half, p, sizeof half);
  return widen_f16(half);
}

/* kLanes bytes. */
#if defined(__AVX512F__)
typedef __m128i VecNarrow;
PS_INLINE VecNarrow load_narrow(const void *p) { return _mm_loadu_si128(static_cast<const __m128i *>(p)); }
PS_INLINE VecNarrow load_narrow_octets(const void *p, const void *other) {
  return _mm_unpacklo_epi64(_mm_loadl_epi64(static_cast<const __m128i *>(p)), _mm_loadl_epi64(static_cast<const __m128i *>(other)));
}
PS_INLINE Vec widen(const q8 *, VecNarrow bytes) { return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
PS_INLINE VecHalf widen_bits(VecNarrow bytes) { return (VecHalf)_mm256_cvtepu8_epi16(bytes); }
#elif defined(__AVX2__)
typedef __m128i VecNarrow;
PS_INLINE VecNarrow load_narrow(const void *p) { return _mm_loadl_epi64(static_cast<const __m128i *>(p)); }
PS_INLINE Vec widen(const q8 *, VecNarrow bytes) { return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
PS_INLINE VecHalf widen_bits(VecNarrow bytes) { return (VecHalf)_mm_cvtepu8_epi16(bytes); }
#elif defined(__ARM_NEON)
typedef uint8x8_t VecNarrow; /* the first kLanes count */
PS_INLINE VecNarrow load_narrow(const void *p) {
  uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return vreinterpret_u8_u32(vdup_n_u32(four));
}
PS_INLINE Vec widen(const q8 *, VecNarrow bytes) { return (Vec)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(bytes))))); }
PS_INLINE VecHalf widen_bits(VecNarrow bytes) { return (VecHalf)vget_low_u16(vmovl_u8(bytes)); }
#else
typedef int8_t VecNarrow __attribute__((vector_size(kLanes)));
PS_INLINE VecNarrow load_narrow(const void *p) {
  VecNarrow bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return bytes;
}
PS_INLINE Vec widen(const q8 *, VecNarrow bytes) { return __builtin_convertvector(__builtin_convertvector(bytes, VecInt), Vec); }
PS_INLINE VecHalf widen_bits(VecNarrow bytes) { return __builtin_convertvector(bytes, VecHalf) & 0xffu; }
#endif

/* e4m3: f16 has room for its bits, with an exponent that is larger by 8. */
PS_INLINE Vec widen(const fp8 *, VecNarrow bytes) {
  const VecHalf bits = widen_bits(bytes);
  return widen_f16((bits & 0x7fu) << 7 | (bits & 0x80u) << 8) * 256.f;
}

PS_INLINE Vec load(const q8 *p) { return widen(p, load_narrow(p)); }
PS_INLINE Vec load(const fp8 *p) { return widen(p, load_narrow(p)); }

/* kLanes numbers, each group of 8 from a separate address; `other` is only read if a vector has 16. */
#if defined(__AVX512F__)
PS_INLINE Vec load_octets(const float *p, const float *other) {
  return (Vec)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p)), _mm256_loadu_ps(other), 1);
}
PS_INLINE VecHalf load_half_octets(const void *p, const void *other) {
  const __m128i low = _mm_loadu_si128(static_cast<const __m128i *>(p)), high = _mm_loadu_si128(static_cast<const __m128i *>(other));
  return (VecHalf)_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}
PS_INLINE Vec load_octets(const bf16 *p, const bf16 *other) { return widen_bf16(load_half_octets(p, other)); }
PS_INLINE Vec load_octets(const f16 *p, const f16 *other) { return widen_f16(load_half_octets(p, other)); }
PS_INLINE Vec load_octets(const q8 *p, const q8 *other) { return widen(p, load_narrow_octets(p, other)); }
PS_INLINE Vec load_octets(const fp8 *p, const fp8 *other) { return widen(p, load_narrow_octets(p, other)); }
#else
template <typename T>
PS_INLINE Vec load_octets(const T *p, const T *) {
  return load(p);
}
#endif

/* a * b + c, fused if the instruction set supports it. */
PS_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }

PS_INLINE Vec vmax(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  const VecInt take = a > b;
  return (Vec)(((VecInt)a & take) | ((VecInt)b & ~take));
#endif
}

PS_INLINE float reduce_add(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
#elif defined(__ARM_NEON)
  return vaddvq_f32((float32x4_t)v);
#else
  float sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
#endif
}

PS_INLINE float reduce_max(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float best = v[0];
  for (int i = 1; i < kLanes; i++) best = v[i] > best ? v[i] : best;
  return best;
#endif
}

/* e^x for x <= 88, to about 2 units in the last place; 0 below -87. Cephes' split of x into n ln 2 + r and its polynomial. */
PS_INLINE Vec exp(Vec x) {
  x = vmax(set1(-87.3f), x); /* this order of arguments propagates NaN */
  const Vec shifted = fma(x, set1(1.44269504088896341f), set1(12582912.f)); /* 1.5 * 2^23: rounds to an integer */
  const Vec n = shifted - 12582912.f;
  Vec r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  Vec p = fma(r, set1(1.9875691500e-4f), set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p * r, r, r + 1.f);
  const VecInt exponent = ((VecInt)shifted - 0x4b400000 + 127) << 23;
  return p * (Vec)exponent;
}

}  // namespace PS_ISA
}  // namespace ps
