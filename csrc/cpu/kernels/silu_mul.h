/* out = gate / (1 + e^-gate) * up. */
#pragma once

#include "gated.h"

namespace ps {
namespace PS_ISA {

PS_INLINE Vec silu(Vec x) {
  const Vec limited = vmax(set1(-88.f), x); /* e^88 is the last power that is finite; this order of arguments propagates NaN */
  return limited / (exp(-limited) + 1.f);
}

static void silu_mul(ThreadPool &pool, const GatedParams &p) {
  gated_rows(pool, p, [](Vec gate) { return silu(gate); });
}

}  // namespace PS_ISA
}  // namespace ps
