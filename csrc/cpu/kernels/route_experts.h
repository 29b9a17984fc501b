/* The experts of a token: the k largest of the softmax of its router logits. */
#pragma once

#include "common.h"

namespace ps {
namespace PS_ISA {

static void route_row(const float *logits, int64_t experts, int64_t k, bool normalize, int32_t *chosen, float *weights) {
  float maximum = logits[0], total = 0, selected_sum = 0;
  for (int64_t e = 1; e < experts; e++) maximum = logits[e] > maximum ? logits[e] : maximum;
  for (int64_t e = 0; e < experts; e++) total += exp(set1(logits[e] - maximum))[0];
  for (int64_t place = 0; place < k; place++) {
    int64_t best = -1;
    for (int64_t e = 0; e < experts; e++) {
      bool taken = false;
      for (int64_t earlier = 0; earlier < place; earlier++) taken = taken || chosen[earlier] == e;
      if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
    }
    chosen[place] = static_cast<int32_t>(best);
    weights[place] = exp(set1(logits[best] - maximum))[0] / total;
    selected_sum += weights[place];
  }
  for (int64_t place = 0; normalize && place < k; place++) weights[place] /= selected_sum;
}

static void route_experts(ThreadPool &pool, const RouteExpertsParams &p) {
  parallel_ranges(pool, p.tokens, rows_per_task(p.experts * p.k), [&](int64_t first, int64_t end) {
    for (int64_t t = first; t < end; t++) route_row(p.logits.row(t), p.experts, p.k, p.normalize, p.chosen.row(t), p.weights.row(t));
  });
}

}  // namespace PS_ISA
}  // namespace ps
