/* Weights of one dtype as those of another, in main memory. */
#pragma once

#include <cstdint>

#include "../include/pagesift.h"

namespace ps {

/* The largest number that can be quantised: f16 scales and minima contain no larger one. */
constexpr float kLargestQuantized = 65504;

constexpr bool can_quantize_to(int32_t dtype) { return dtype >= PS_Q8_0 && dtype <= PS_Q5_1; }

/* Widens `count` numbers of a plain dtype to f32. */
void widen_numbers(int32_t dtype, const void *source, int64_t count, float *out);

/* Rounds numbers to a plain dtype, or quantises them, a multiple of the block, as ggml's reference quantiser does. */
void narrow_numbers(int32_t dtype, const float *source, int64_t count, void *out);

}  // namespace ps
