/* out[rows[i]] += weights[i] * x[i]. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

static void scatter_add(ThreadPool &pool, const ScatterAddParams &p) {
  parallel_ranges(pool, p.count, rows_per_task(p.width), [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) {
      const float *x = p.x.row(i), weight = p.weights[i];
      float *out = p.out.row(p.rows[i]);
      for (int64_t j = 0; j < p.width; j++) out[j] += weight * x[j];
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
