/* Attention of a prompt and of a decode step over pages of every type, against softmax in f64 over what the pages store. Prints the
 * instruction set. */
#include "sequence.h"

namespace {

constexpr int64_t kLength = 150, kStart = 13; /* of the sequence; where the chunk of the prompt starts */

/* One query at a position, over tokens [first, position] whose page is taken. */
std::vector<double> attend(const Sequence &sequence, const float *q, int64_t head, float scale, int64_t first, int64_t position,
                           const std::vector<bool> &taken) {
  const int64_t d = sequence.desc.head_dim;
  std::vector<double> weights(size_t(position + 1)), out(static_cast<size_t>(d));
  double most = -INFINITY, total = 0;
  for (int64_t t = first; t <= position; t++) {
    const float *key = sequence.key(head, t);
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += double(q[i]) * key[i];
    weights[size_t(t)] = taken[size_t(t / sequence.desc.page_size)] ? sum * scale : -INFINITY;
    most = std::fmax(most, weights[size_t(t)]);
  }
  for (int64_t t = first; t <= position; t++) total += weights[size_t(t)] = std::exp(weights[size_t(t)] - most);
  for (int64_t t = first; t <= position; t++) {
    const float *value = sequence.value(head, t);
    for (int64_t i = 0; i < d; i++) out[size_t(i)] += weights[size_t(t)] / total * value[i];
  }
  return out;
}

void compare(const float *actual, const std::vector<double> &expected, double relative, const char *what) {
  for (size_t i = 0; i < expected.size(); i++) must_be_near(actual[i], expected[i], relative * 4, what); /* 4: the largest values */
}

void check_decode(Machine &machine, const Sequence &sequence, int32_t window) {
  const int64_t heads = sequence.desc.num_kv_heads, d = sequence.desc.head_dim, group = sequence.desc.num_query_heads / heads;
  const float scale = 1 / std::sqrt(float(d));
  const std::vector<float> numbers = machine.draw(heads * group * d);
  const ps_tensor q = machine.make({1, heads * group, d}, numbers), out = machine.make({1, heads * group, d});
  const int64_t first = window > 0 ? sequence.length - window : 0;
  const std::vector<bool> all(size_t(sequence.pages()), true);
  MUST(ps_decode_attention(sequence.cache, 0, scale, window, &q, &sequence.table, &sequence.lengths, nullptr, nullptr, &out) == PS_OK);
  std::vector<float> actual = Machine::read(out);
  for (int64_t h = 0; h < heads * group; h++) {
    compare(actual.data() + h * d, attend(sequence, numbers.data() + h * d, h / group, scale, first, sequence.length - 1, all), kExact,
            "dense decode");
  }
  if (window > 0) return;
  std::vector<bool> some(all.size());
  std::vector<int32_t> own;
  for (size_t p = 0; p < some.size(); p += 3) some[p] = true, own.push_back(int32_t(p));
  const int64_t k = int64_t(own.size());
  std::vector<int32_t> lists;
  for (int64_t head = 0; head < heads; head++) lists.insert(lists.end(), own.begin(), own.end());
  const ps_tensor selected = machine.make({1, heads, k}, lists, PS_I32);
  const ps_tensor counts = machine.make({1, heads}, std::vector<int32_t>(size_t(heads), int32_t(k)), PS_I32);
  MUST(ps_decode_attention(sequence.cache, 0, scale, 0, &q, &sequence.table, &sequence.lengths, &selected, &counts, &out) == PS_OK);
  actual = Machine::read(out);
  for (int64_t h = 0; h < heads * group; h++) {
    compare(actual.data() + h * d, attend(sequence, numbers.data() + h * d, h / group, scale, 0, sequence.length - 1, some), kExact, "sparse decode");
  }
}

void check_prefill(Machine &machine, const Sequence &sequence, int32_t window) {
  const int64_t heads = sequence.desc.num_kv_heads, d = sequence.desc.head_dim, group = sequence.desc.num_query_heads / heads;
  const int64_t tokens = sequence.length - kStart;
  const float scale = 1 / std::sqrt(float(d));
  const std::vector<float> numbers = machine.draw(tokens * heads * group * d);
  const ps_tensor q = machine.make({tokens, heads * group, d}, numbers), out = machine.make({tokens, heads * group, d});
  ps_tensor table = sequence.table;
  table.rank = 1;
  table.shape[0] = table.shape[1], table.shape[1] = table.row_stride = 1;
  MUST(ps_prefill_attention(sequence.cache, 0, scale, window, kStart, &q, &table, &out) == PS_OK);
  const std::vector<float> actual = Machine::read(out);
  const std::vector<bool> all(size_t(sequence.pages()), true);
  const bool rounds = machine.isa() == "amx" && sequence.desc.dtype != PS_F32;
  for (int64_t t = 0; t < tokens; t += 5) {
    const int64_t position = kStart + t, first = window > 0 && position >= window ? position - window + 1 : 0;
    for (int64_t h = 0; h < heads * group; h++) {
      const int64_t at = (t * heads * group + h) * d;
      compare(actual.data() + at, attend(sequence, numbers.data() + at, h / group, scale, first, position, all), rounds ? 2 * kRounded : kExact,
              "prefill");
    }
  }
}

}  // namespace

int main() {
  Machine machine;
  int caches = 0;
  for (const int32_t dtype : {PS_F32, PS_F16, PS_BF16}) {
    for (const int32_t kv_type : {PS_KV_DTYPE, PS_KV_Q8, PS_KV_FP8}) {
      for (const int32_t group : {1, 3, 6}) {
        const Sequence sequence(machine, {dtype, kv_type, group == 6 ? 32 : 8, group, group == 3 ? 80 : 64, 0}, kLength);
        for (const int32_t window : {0, 37}) {
          check_decode(machine, sequence, window);
          check_prefill(machine, sequence, window);
        }
        machine.clear();
        caches++;
      }
    }
  }
  std::printf("caches %d with %s\n", caches, machine.isa().c_str());
  return 0;
}
