/* The lowest index of each row's largest number; -1 for a row with a NaN or without a finite maximum. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

static int32_t argmax_row(const float *x, int64_t width) {
  bool nan = false;
  float best = -__builtin_inff();
  int64_t i = 0;
  VecInt unordered{};
  Vec largest = set1(best);
  for (; i + kLanes <= width; i += kLanes) {
    const Vec v = load(x + i);
    unordered |= v != v;
    largest = vmax(v, largest);
  }
  for (int lane = 0; lane < kLanes; lane++) nan = nan || unordered[lane] != 0;
  best = reduce_max(largest);
  for (; i < width; i++) {
    nan = nan || x[i] != x[i];
    best = x[i] > best ? x[i] : best;
  }
  if (nan || best == __builtin_inff() || best == -__builtin_inff()) return -1;
  for (i = 0; x[i] != best; i++) {
  }
  return static_cast<int32_t>(i);
}

static void argmax(ThreadPool &pool, const ArgmaxParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.width), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) p.out[t] = argmax_row(p.x.row(t), p.width);
  });
}

}  // namespace PS_ISA
}  // namespace ps
