/* x *= factor. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

static void scale(ThreadPool &pool, const ScaleParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) {
      float *x = p.x.row(t);
      for (int64_t i = 0; i < p.width; i++) x[i] *= p.factor;
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
