/* Rotary position embedding: a table of cosines and sines once per step, then a rotation of each head (halves paired). */
#pragma once

#include <cmath>

#include "common.h"

namespace ps {
namespace PS_ISA {

static void rope_table(ThreadPool &pool, const RopeTableParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(16 * p.pairs), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) {
      const double position = p.positions[t];
      double scale = p.scale;
      if (p.position_beta != 0) scale *= 1 + p.position_beta * ::log1p(::floor(position / p.position_origin));
      for (int64_t i = 0; i < p.pairs; i++) {
        const double angle = position * p.inv_freq[i];
        p.out.row(t)[i] = static_cast<float>(scale * ::cos(angle));
        p.out.row(t)[p.pairs + i] = static_cast<float>(scale * ::sin(angle));
      }
    }
  });
}

static void rope_head(float *x, const float *cosines, const float *sines, int64_t pairs) {
  int64_t i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Vec a = load(x + i), b = load(x + pairs + i), c = load(cosines + i), s = load(sines + i);
    store(x + i, a * c - b * s);
    store(x + pairs + i, b * c + a * s);
  }
  for (; i < pairs; i++) {
    const float a = x[i], b = x[pairs + i];
    x[i] = a * cosines[i] - b * sines[i];
    x[pairs + i] = b * cosines[i] + a * sines[i];
  }
}

static void rope(ThreadPool &pool, const RopeParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.heads * p.head_dim), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) {
      const float *cosines = p.table.row(t);
      for (int64_t h = 0; h < p.heads; h++) rope_head(p.x.row(t) + h * p.head_dim, cosines, cosines + p.pairs, p.pairs);
    }
  });
}

}  // namespace PS_ISA
}  // namespace ps
