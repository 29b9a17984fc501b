/* out = gelu(gate) * up, with the tanh form of gelu. (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) needs one exponential and keeps the digits of
 * small results. */
#pragma once

#include "gated.h"

namespace ps {
namespace PS_ISA {

PS_INLINE Vec gelu(Vec x) {
  const Vec limited = vmax(set1(-10.f), x); /* gelu(-10) is -1e-37, and e^-2u is finite up to there; in this order NaN stays NaN */
  const Vec twice_u = limited * fma(limited * limited, set1(0.0713548162726009f), set1(1.5957691216057308f));
  return limited / (exp(-twice_u) + 1.f);
}

static void gelu_mul(ThreadPool &pool, const GatedParams &p) {
  gated_rows(pool, p, [](Vec gate) { return gelu(gate); });
}

}  // namespace PS_ISA
}  // namespace ps
