/* out = x / sqrt(mean(x^2) + eps) * weight, one row of `width` numbers per head. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

template <typename W>
static void rms_norm_row(const float *x, const W *weight, float *out, int64_t width, float eps) {
  Vec squares{};
  float tail = 0;
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  for (; i < width; i++) tail += x[i] * x[i];
  const float scale = 1.f / __builtin_sqrtf((reduce_add(squares) + tail) / static_cast<float>(width) + eps);
  for (i = 0; i + kLanes <= width; i += kLanes) store(out + i, load(x + i) * scale * load(weight + i));
  for (; i < width; i++) out[i] = x[i] * scale * to_float(weight[i]);
}

static void rms_norm(ThreadPool &pool, const RmsNormParams &p) {
  with_dtype(p.weight.dtype, [&](auto type) {
    const auto *weight = static_cast<const decltype(type) *>(p.weight.data);
    parallel_ranges(pool, p.tokens, rows_per_task(p.heads * p.width), [&](int64_t first, int64_t end) {
      for (int64_t t = first; t < end; t++) {
        for (int64_t h = 0; h < p.heads; h++) {
          rms_norm_row(p.x.row(t) + h * p.width, weight, p.out.row(t) + h * p.width, p.width, p.eps);
        }
      }
    });
  });
}

}  // namespace PS_ISA
}  // namespace ps
