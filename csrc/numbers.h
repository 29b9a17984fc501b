/* The two 16-bit float formats and the two 8-bit ones of the KV cache, one number at a time. Static functions: files of different instruction sets must not share code. */
#pragma once

#include <cstdint>
#include <cstring>

namespace ps {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
/* Multiplied by the scale of its row. */
struct q8 {
  int8_t bits;
};
/* e4m3, multiplied by the scale of its row. */
struct fp8 {
  uint8_t bits;
};

static inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float to_float(float value) { return value; }
static inline float to_float(bf16 value) { return float_from_bits(uint32_t(value.bits) << 16); }

static inline float to_float(f16 value) {
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  /* 2^112 rebases the exponent and corrects subnormals; the all-ones exponent stays infinite or NaN. */
  const uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : bits_from_float(float_from_bits(magnitude) * 0x1p112f);
  return float_from_bits(bits | uint32_t(value.bits & 0x8000) << 16);
}

static inline float to_float(q8 value) { return value.bits; }

static inline float to_float(fp8 value) {
  const uint32_t magnitude = uint32_t(value.bits & 0x7f) << 20; /* 2^120 rebases the exponent and corrects subnormals */
  return float_from_bits(bits_from_float(float_from_bits(magnitude) * 0x1p120f) | uint32_t(value.bits & 0x80) << 24);
}

/* Rounds to nearest, ties to even; NaN remains NaN. */
static inline void store_number(float *out, float value) { *out = value; }

static inline void store_number(bf16 *out, float value) {
  const uint32_t bits = bits_from_float(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  out->bits = static_cast<uint16_t>(nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline void store_number(f16 *out, float value) {
  const uint32_t bits = bits_from_float(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    out->bits = sign | 0x7e00u;
  } else if (magnitude >= 0x477ff000u) { /* rounds past the largest f16, 65504 */
    out->bits = sign | 0x7c00u;
  } else if (magnitude < 0x38800000u) { /* subnormal: the float adder rounds at the right bit */
    out->bits = sign | static_cast<uint16_t>(bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u);
  } else {
    out->bits = sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
  }
}

/* The largest magnitude of the 8-bit formats. */
template <typename T>
struct Largest;
template <>
struct Largest<q8> {
  static constexpr float value = 127;
};
template <>
struct Largest<fp8> {
  static constexpr float value = 448;
};

/* |value| is at most that of the format and a rounding error. The float adder rounds at the right bit. */
static inline void store_number(q8 *out, float value) { out->bits = static_cast<int8_t>(bits_from_float(value + 0x1.8p23f) - 0x4b400000u); }

static inline void store_number(fp8 *out, float value) {
  const uint32_t bits = bits_from_float(value), magnitude = bits & 0x7fffffffu;
  const uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0x1p14f) - 0x46800000u;
  const uint32_t normal = (magnitude - 0x3c000000u + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20;
  out->bits = static_cast<uint8_t>((bits >> 24 & 0x80u) | (magnitude < 0x3c800000u ? subnormal : normal));
}

/* The scale of a row of 8-bit numbers whose largest magnitude is `largest`; NaN for one that is not finite. Numbers are divided by it, and by
 * 1 where it is 0: the product with an inverse could be fused with a rounding, and would differ from processor to processor. */
template <typename T>
static inline float row_scale(float largest) {
  if (!(largest <= 0x1.fffffep127f)) return float_from_bits(0x7fc00000u);
  return largest < 0x1p-100f ? 0.f : largest / Largest<T>::value;
}

}  // namespace ps
