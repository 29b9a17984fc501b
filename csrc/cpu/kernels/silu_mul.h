/* out = gate / (1 + e^-gate) * up. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

PS_INLINE Vec silu(Vec x) {
  const Vec limited = vmax(set1(-88.f), x); /* e^88 is the last power that is finite; this order of arguments propagates NaN */
  return limited / (exp(-limited) + 1.f);
}

static void silu_mul_row(const float *gate, const float *up, float *out, int64_t width) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) store(out + i, silu(load(gate + i)) * load(up + i));
  for (; i < width; i++) out[i] = silu(set1(gate[i]))[0] * up[i];
}

static void silu_mul(ThreadPool &pool, const SiluMulParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) silu_mul_row(p.gate.row(t), p.up.row(t), p.out.row(t), p.width);
  });
}

}  // namespace PS_ISA
}  // namespace ps
