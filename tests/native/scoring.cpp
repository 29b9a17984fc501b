/* Page statistics, the scores of every scorer, and the selection of pages, against the definitions in f64. Prints the instruction set. */
#include <algorithm>

#include "sequence.h"

namespace {

constexpr float kLambda = 0.75f;
constexpr int64_t kLength = 203, kBudget = 9, kSink = 1, kRecent = 2;

struct PageStatistics {
  std::vector<float> mean, std, variance, min, max;
};

PageStatistics read_statistics(const Sequence &sequence, int64_t page) {
  return {sequence.field(page, PS_FIELD_MEAN), sequence.field(page, PS_FIELD_STD), sequence.field(page, PS_FIELD_VAR),
          sequence.field(page, PS_FIELD_MIN), sequence.field(page, PS_FIELD_MAX)};
}

/* The statistics of a page are those of its keys, as far as the pages' numbers can tell. */
void check_statistics(const Sequence &sequence, int64_t page, const PageStatistics &statistics) {
  const int64_t d = sequence.desc.head_dim, tokens = std::min(sequence.length - page * sequence.desc.page_size, int64_t(sequence.desc.page_size));
  const double unit = sequence.desc.dtype == PS_F32 ? kExact : 0x1p-7;
  for (int64_t head = 0; head < sequence.desc.num_kv_heads; head++) {
    double spread = 0;
    for (int64_t i = 0; i < d; i++) {
      double sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
      for (int64_t t = 0; t < tokens; t++) {
        const double key = sequence.key(head, page * sequence.desc.page_size + t)[i];
        sum += key, squares += key * key, least = std::fmin(least, key), most = std::fmax(most, key);
      }
      const double mean = sum / double(tokens), variance = std::fmax(0, squares / double(tokens) - mean * mean);
      const size_t at = size_t(head * d + i);
      spread += variance;
      must_be_near(statistics.mean[at], mean, unit * 4, "a mean");
      must_be_near(statistics.variance[at], variance, unit * 16, "a variance");
      must_be_near(statistics.min[at], least, unit * 4, "a minimum");
      must_be_near(statistics.max[at], most, unit * 4, "a maximum");
    }
    must_be_near(statistics.std[size_t(head)], std::sqrt(spread), 1e-3, "a standard deviation");
  }
}

double score(ps_scorer scorer, const PageStatistics &page, const float *q, int64_t head, int64_t d, double *size) {
  double mean = 0, squares = 0, variance = 0, quest = 0;
  *size = 0;
  for (int64_t i = 0; i < d; i++) {
    const size_t at = size_t(head * d + i);
    mean += double(q[i]) * page.mean[at];
    squares += double(q[i]) * q[i];
    variance += double(q[i]) * q[i] * page.variance[at];
    quest += std::fmax(double(q[i]) * page.min[at], double(q[i]) * page.max[at]);
    *size += std::fabs(q[i]) * std::fmax(std::fabs(page.min[at]), std::fabs(page.max[at]));
  }
  if (scorer == PS_UNIQUE) return mean + kLambda * std::sqrt(squares) * page.std[size_t(head)];
  if (scorer == PS_DIAG) return mean + kLambda * std::sqrt(variance);
  return scorer == PS_QUEST ? quest : mean;
}

/* The pages that ps_page_select takes, from the scores as they are. */
std::vector<int32_t> best_pages(const float *scores, int64_t pages) {
  std::vector<int32_t> order;
  for (int64_t p = kSink; p < pages - kRecent; p++) order.push_back(int32_t(p));
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(size_t(kBudget - kSink - kRecent));
  for (int64_t p = 0; p < kSink; p++) order.push_back(int32_t(p));
  for (int64_t p = pages - kRecent; p < pages; p++) order.push_back(int32_t(p));
  std::sort(order.begin(), order.end());
  return order;
}

void check(Machine &machine, int32_t dtype, int32_t kv_type, int32_t page_size, int32_t group, int32_t d) {
  const Sequence sequence(machine, {dtype, kv_type, page_size, group, d, PS_STATISTICS_VARIANCE | PS_STATISTICS_MIN_MAX}, kLength);
  const int64_t heads = sequence.desc.num_kv_heads, pages = sequence.pages(), most = sequence.desc.max_pages_per_sequence;
  std::vector<PageStatistics> statistics;
  for (int64_t p = 0; p < pages; p++) {
    statistics.push_back(read_statistics(sequence, p));
    if (kv_type == PS_KV_DTYPE) check_statistics(sequence, p, statistics.back());
  }
  const std::vector<float> numbers = machine.draw(heads * group * d);
  const ps_tensor q = machine.make({1, heads * group, d}, numbers);
  const ps_tensor scores = machine.make({1, heads, most});
  const ps_tensor selected = machine.make({1, heads, kBudget}, PS_I32), counts = machine.make({1, heads}, PS_I32);
  for (const ps_scorer scorer : {PS_UNIQUE, PS_DIAG, PS_QUEST, PS_MEAN}) {
    MUST(ps_page_score(sequence.cache, 0, scorer, kLambda, &q, &sequence.table, &sequence.lengths, &scores) == PS_OK);
    MUST(ps_page_select(sequence.cache, kSink, kRecent, &scores, &sequence.lengths, &selected, &counts) == PS_OK);
    const std::vector<float> actual = Machine::read(scores);
    const std::vector<int32_t> chosen = Machine::read<int32_t>(selected), count = Machine::read<int32_t>(counts);
    for (int64_t head = 0; head < heads; head++) {
      for (int64_t p = 0; p < pages; p++) {
        double expected = -INFINITY, largest = 0, size = 0;
        for (int64_t h = 0; h < group; h++) {
          const float *query = numbers.data() + (head * group + h) * d;
          expected = std::fmax(expected, score(scorer, statistics[size_t(p)], query, head, d, &size));
          largest = std::fmax(largest, size);
        }
        must_be_near(actual[size_t(head * most + p)], expected, kExact * (largest + std::fabs(expected)), "a score");
      }
      MUST(count[size_t(head)] == kBudget);
      const std::vector<int32_t> best = best_pages(actual.data() + head * most, pages);
      MUST(std::equal(best.begin(), best.end(), chosen.begin() + head * kBudget));
    }
  }
}

}  // namespace

int main() {
  Machine machine;
  int caches = 0;
  for (const int32_t dtype : {PS_F32, PS_F16, PS_BF16}) {
    for (const int32_t kv_type : {PS_KV_DTYPE, PS_KV_Q8, PS_KV_FP8}) {
      for (const int32_t group : {1, 3, 5}) {
        check(machine, dtype, kv_type, group == 3 ? 16 : 8, group, group == 1 ? 80 : 64);
        machine.clear();
        caches++;
      }
    }
  }
  std::printf("caches %d with %s\n", caches, machine.isa().c_str());
  return 0;
}
