/* Compiled without fused multiply-add where the processor's baseline lacks it (x86-64), so that every number rounds as in ggml. */
#include "quantize.h"

#include <cmath>
#include <cstring>

#include "../block_formats.h"
#include "../numbers.h"

namespace ps {
namespace {

uint16_t f16_bits(float value) {
  f16 half;
  store_number(&half, value);
  return half.bits;
}

/* Cut to [0, most], towards zero. */
uint8_t level(float value, int most) { return static_cast<uint8_t>(value < float(most) ? (value > 0 ? int(value) : 0) : most); }

float inverse(float scale) { return scale != 0 ? 1 / scale : 0; }

/* The number of the largest magnitude, the first of equal ones. */
float extreme(const float *x) {
  float magnitude = 0, found = 0;
  for (int i = 0; i < 32; i++) {
    if (std::fabs(x[i]) > magnitude) magnitude = std::fabs(x[i]), found = x[i];
  }
  return found;
}

struct Range {
  float least, most;
};

Range range_of(const float *x) {
  Range range{x[0], x[0]};
  for (int i = 1; i < 32; i++) {
    if (x[i] < range.least) range.least = x[i];
    if (x[i] > range.most) range.most = x[i];
  }
  return range;
}

void pack_low(const uint8_t *levels, uint8_t *q) {
  for (int i = 0; i < 16; i++) q[i] = static_cast<uint8_t>((levels[i] & 15) | (levels[i + 16] & 15) << 4);
}

void pack_high(const uint8_t *levels, uint8_t *high) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++) bits |= uint32_t(levels[i] >> 4) << i;
  for (int i = 0; i < 4; i++) high[i] = static_cast<uint8_t>(bits >> 8 * i);
}

/* Levels of numbers whose scale is that of the extreme one, which gets the lowest level. */
float symmetric_levels(const float *x, int half, uint8_t *levels) {
  const float scale = extreme(x) / float(-half), by = inverse(scale);
  for (int i = 0; i < 32; i++) levels[i] = level(x[i] * by + (float(half) + 0.5f), 2 * half - 1);
  return scale;
}

/* Levels from the least number to the largest. */
float ranged_levels(const float *x, const Range &range, int most, uint8_t *levels) {
  const float scale = (range.most - range.least) / float(most), by = inverse(scale);
  for (int i = 0; i < 32; i++) levels[i] = level((x[i] - range.least) * by + 0.5f, most);
  return scale;
}

void quantize(const float *x, BlockQ8_0 *out) {
  const float scale = std::fabs(extreme(x)) / 127, by = inverse(scale);
  for (int i = 0; i < 32; i++) out->q[i] = static_cast<int8_t>(std::fmax(-127.f, std::fmin(127.f, std::round(x[i] * by))));
  out->scale = f16_bits(scale);
}

void quantize(const float *x, BlockQ4_0 *out) {
  uint8_t levels[32];
  out->scale = f16_bits(symmetric_levels(x, 8, levels));
  pack_low(levels, out->q);
}

void quantize(const float *x, BlockQ4_1 *out) {
  uint8_t levels[32];
  const Range range = range_of(x);
  out->scale = f16_bits(ranged_levels(x, range, 15, levels));
  out->min = f16_bits(range.least);
  pack_low(levels, out->q);
}

void quantize(const float *x, BlockQ5_0 *out) {
  uint8_t levels[32];
  out->scale = f16_bits(symmetric_levels(x, 16, levels));
  pack_low(levels, out->q);
  pack_high(levels, out->high);
}

void quantize(const float *x, BlockQ5_1 *out) {
  uint8_t levels[32];
  const Range range = range_of(x);
  out->scale = f16_bits(ranged_levels(x, range, 31, levels));
  out->min = f16_bits(range.least);
  pack_low(levels, out->q);
  pack_high(levels, out->high);
}

template <typename Block>
void quantize_all(const float *source, int64_t count, void *out) {
  for (int64_t i = 0; i < count / 32; i++) quantize(source + 32 * i, static_cast<Block *>(out) + i);
}

template <typename T>
void widen(const void *source, int64_t count, float *out) {
  for (int64_t i = 0; i < count; i++) {
    T number; /* in a file, numbers may begin anywhere */
    std::memcpy(&number, static_cast<const char *>(source) + i * int64_t(sizeof number), sizeof number);
    out[i] = to_float(number);
  }
}

template <typename T>
void narrow(const float *source, int64_t count, void *out) {
  for (int64_t i = 0; i < count; i++) store_number(static_cast<T *>(out) + i, source[i]);
}

}  // namespace

void widen_numbers(int32_t dtype, const void *source, int64_t count, float *out) {
  switch (dtype) {
    case PS_F32: return widen<float>(source, count, out);
    case PS_F16: return widen<f16>(source, count, out);
    default: return widen<bf16>(source, count, out);
  }
}

void narrow_numbers(int32_t dtype, const float *source, int64_t count, void *out) {
  switch (dtype) {
    case PS_F32: return narrow<float>(source, count, out);
    case PS_F16: return narrow<f16>(source, count, out);
    case PS_BF16: return narrow<bf16>(source, count, out);
    case PS_Q8_0: return quantize_all<BlockQ8_0>(source, count, out);
    case PS_Q4_0: return quantize_all<BlockQ4_0>(source, count, out);
    case PS_Q4_1: return quantize_all<BlockQ4_1>(source, count, out);
    case PS_Q5_0: return quantize_all<BlockQ5_0>(source, count, out);
    default: return quantize_all<BlockQ5_1>(source, count, out);
  }
}

}  // namespace ps
