/* out = activation(gate) * up: what the gated feed-forward blocks share. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

template <typename Activation>
static void gated_rows(ThreadPool &pool, const GatedParams &p, const Activation &activation) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) {
      const float *gate = p.gate.row(t), *up = p.up.row(t);
      float *out = p.out.row(t);
      int64_t i = 0;
      for (; i + kLanes <= p.width; i += kLanes) store(out + i, activation(load(gate + i)) * load(up + i));
      for (; i < p.width; i++) out[i] = activation(set1(gate[i]))[0] * up[i];
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
