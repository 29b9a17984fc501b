/* A token for each row of logits (csrc/sample_rules.h). The cut of a filter is found as in the CUDA build: by the high bits of the
 * keys first, with the weights of 2048 bins at a time. */
#pragma once

#include "../../sample_rules.h"
#include "common.h"

namespace ps {
namespace PS_ISA {

/* Ranks of the tokens that pass the filters so far, in ascending order of id. */
struct Candidates {
  uint64_t *ranks;
  int64_t count;

  void drop_below(uint64_t lowest) {
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
      ranks[left] = ranks[i];
      left += ranks[i] >= lowest;
    }
    count = left;
  }
};

/* From the best token on, the rank at which the running amount first exceeds target_of(sum of all amounts). */
template <typename Amount, typename TargetOf>
static uint64_t rank_at(const Candidates &candidates, const Amount &amount, const TargetOf &target_of) {
  uint64_t sums[sampling::kBins], rest = 0;
  uint32_t found = 0;
  for (int pass = 0; pass < sampling::kPasses; pass++) {
    for (uint64_t &sum : sums) sum = 0;
    for (int64_t i = 0; i < candidates.count; i++) {
      const uint32_t key = sampling::key_of_rank(candidates.ranks[i]);
      if (sampling::agree(key, found, pass)) sums[sampling::bin_of(key, pass)] += amount(sampling::number_of(key));
    }
    if (pass == 0) {
      uint64_t total = 0;
      for (const uint64_t sum : sums) total += sum;
      rest = target_of(total);
    }
    uint32_t bin = sampling::kBins - 1;
    while (bin > 0 && sums[bin] <= rest) rest -= sums[bin--];
    found |= bin << sampling::shift_after(pass + 1);
  }
  uint64_t ties = rest / amount(sampling::number_of(found));
  int64_t i = 0;
  while (sampling::key_of_rank(candidates.ranks[i]) != found || ties-- > 0) i++;
  return candidates.ranks[i];
}

/* The first token in ascending order of id whose running weight exceeds the target. */
static int32_t draw_of_all(const float *x, int64_t width, const sampling::Rules &rules) {
  uint64_t total = 0;
  for (int64_t i = 0; i < width; i++) total += rules.weight(x[i]);
  uint64_t rest = rules.draw_target(total);
  int64_t i = 0;
  for (uint64_t weight; (weight = rules.weight(x[i])) <= rest; i++) rest -= weight;
  return static_cast<int32_t>(i);
}

static int32_t draw_from(Candidates candidates, uint64_t best, const sampling::Rules &rules) {
  if (rules.top_k > 0 && rules.top_k < candidates.count) {
    const uint64_t target = static_cast<uint64_t>(rules.top_k) - 1;
    candidates.drop_below(rank_at(candidates, [](float) { return uint64_t(1); }, [&](uint64_t) { return target; }));
  }
  if (rules.top_p < 1) {
    candidates.drop_below(
        rank_at(candidates, [&](float logit) { return rules.mass(logit); }, [&](uint64_t total) { return rules.mass_target(total); }));
  }
  candidates.drop_below(rules.lowest_rank(best));
  return sampling::id_of_rank(
      rank_at(candidates, [&](float logit) { return rules.weight(logit); }, [&](uint64_t total) { return rules.draw_target(total); }));
}

static int32_t sample_row(const float *x, int64_t width, sampling::Rules rules, uint64_t *ranks) {
  const int32_t best = argmax_row(x, width);
  if (best < 0 || !(rules.temperature > 0)) return -1;
  rules.max = x[best];
  if (!rules.filters()) return draw_of_all(x, width, rules);
  Candidates candidates{ranks, width};
  for (int64_t i = 0; i < width; i++) ranks[i] = sampling::rank_of(x[i], i);
  candidates.drop_below(sampling::kFiniteRank);
  return draw_from(candidates, sampling::rank_of(rules.max, best), rules);
}

static void sample(ThreadPool &pool, const SampleParams &p) {
  pool.reserve_scratch(p.width * static_cast<int64_t>(sizeof(uint64_t)));
  pool.parallel_for(p.tokens, [&](int64_t t, int thread) {
    const sampling::Rules rules(p.settings + 4 * t, p.draws[t], p.width);
    p.out[t] = sample_row(p.logits.row(t), p.width, rules, static_cast<uint64_t *>(pool.scratch(thread)));
  });
}

}  // namespace PS_ISA
}  // namespace ps
