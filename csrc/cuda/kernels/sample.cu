/* A token for each row of logits (csrc/sample_rules.h). Bound by reading 4 bytes per logit from the L2 cache, a few times: a block per row,
 * as in argmax.cu.
 *
 * Where no more tokens matter than the block has threads, which the counts of the first pass mostly show, they are sorted, one a
 * thread, and the filters become running sums (sorted_draw). Else each filter cuts by counting passes over the keys (find), and a last
 * pass goes by id among equal logits (walk). */
#include "sample_parts.cuh"

namespace ps {
namespace {

using sampling::Rules;

/* What is known of the running sums over the sorted tokens. */
constexpr uint64_t kFromTotal = ~uint64_t(0);  /* the target follows from the sum of the sorted tokens */
constexpr uint64_t kNoFilter = kFromTotal - 1; /* no sum exceeds it */

/* Draws from all tokens of at least rank `lowest`, no more than kSorted. */
__device__ int32_t sorted_draw(const Row &row, const Rules &rules, uint64_t lowest, uint64_t mass_target, uint64_t draw_target,
                               SampleShared &shared) {
  const int64_t place = threadIdx.x;
  const uint64_t rank = sorted_rank(row, lowest, shared);
  const float logit = sampling::number_of(sampling::key_of_rank(rank));
  bool kept = rank != 0 && (rules.top_k == 0 || place < rules.top_k);
  uint64_t total;
  if (mass_target != kNoFilter) {
    const uint64_t before = sum_before(kept ? rules.mass(logit) : 0, total, shared);
    kept = kept && before <= (mass_target == kFromTotal ? rules.mass_target(total) : mass_target);
  }
  kept = kept && rank >= rules.lowest_rank(row.best);
  const uint64_t weight = kept ? rules.weight(logit) : 0, before = sum_before(weight, total, shared);
  const uint64_t target = draw_target == kFromTotal ? rules.draw_target(total) : draw_target;
  if (before <= target && target < before + weight) shared.id = sampling::id_of_rank(rank);
  __syncthreads();
  return shared.id;
}

/* The token at which the running amount exceeds the target, of those that find() left. */
template <typename Amount>
__device__ int32_t tied_token(const Row &row, uint64_t lowest, const Found &found, const Amount &amount, SampleShared &shared) {
  const uint64_t ties = found.rest / amount(sampling::number_of(found.key));
  auto is_tie = [&](float logit, int64_t id) { return uint64_t(sampling::key_of(logit) == found.key && sampling::rank_of(logit, id) >= lowest); };
  return walk(row, is_tie, [&](uint64_t) { return ties; }, shared);
}

__device__ int32_t filtered_draw(const Row &row, const Rules &rules, SampleShared &shared) {
  auto one = [](float) { return uint64_t(1); };
  auto mass = [&](float logit) { return rules.mass(logit); };
  auto weight = [&](float logit) { return rules.weight(logit); };
  const uint64_t mass_target = rules.top_p < 1 ? kFromTotal : kNoFilter;
  uint64_t lowest = sampling::kFiniteRank;
  auto from = [&](const Found &found) { return max(lowest, uint64_t(found.key) << 32); };
  auto cut = [&](const Found &found, auto &amount) {
    return sampling::rank_of(sampling::number_of(found.key), tied_token(row, lowest, found, amount, shared));
  };
  if (rules.top_k > 0) {
    /* Where fewer than k are above -infinity, all of those stay. */
    const Found found = find(row, lowest, one, [&](uint64_t total) { return min(uint64_t(rules.top_k), total) - 1; }, shared);
    if (found.tokens <= kSorted) return sorted_draw(row, rules, from(found), mass_target, kFromTotal, shared);
    lowest = cut(found, one);
  }
  Rules rest = rules;
  rest.top_k = 0;
  if (rules.top_p < 1) {
    const Found found = find(row, lowest, mass, [&](uint64_t total) { return rules.mass_target(total); }, shared);
    if (found.tokens <= kSorted) return sorted_draw(row, rest, from(found), found.target, kFromTotal, shared);
    lowest = cut(found, mass);
  }
  lowest = max(lowest, rules.lowest_rank(row.best));
  const Found found = find(row, lowest, weight, [&](uint64_t total) { return rules.draw_target(total); }, shared);
  if (found.tokens <= kSorted) return sorted_draw(row, rest, from(found), kNoFilter, found.target, shared);
  return tied_token(row, lowest, found, weight, shared);
}

__global__ void __launch_bounds__(kSampleThreads) sample_kernel(const __grid_constant__ SampleParams p) {
  __shared__ SampleShared shared;
  wait_for_previous();
  let_next_start();
  const int64_t t = blockIdx.x;
  Row row{p.logits.row(t), p.width, 0};
  Rules rules(p.settings + 4 * t, p.draws[t], p.width);
  int32_t id = -1;
  row.best = best_rank(row, shared);
  if (row.best != 0 && rules.temperature > 0) {
    rules.max = sampling::number_of(sampling::key_of_rank(row.best));
    auto weight = [&](float logit, int64_t) { return rules.weight(logit); };
    id = rules.filters() ? filtered_draw(row, rules, shared) : walk(row, weight, [&](uint64_t total) { return rules.draw_target(total); }, shared);
  }
  if (threadIdx.x == 0) p.out[t] = id;
}

}  // namespace

void sample(Backend &backend, const SampleParams &params) {
  launch(backend, "Could not launch sample", sample_kernel, dim3(static_cast<unsigned>(params.tokens)), kSampleThreads, 0, params);
}

}  // namespace ps
