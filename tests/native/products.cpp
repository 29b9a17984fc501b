/* ps_matmul with weights of every format, against sums in f64 over the weights as ps_embedding reads them. Prints the instruction set. */
#include "numbers.h"

namespace {

/* Above this many tokens, x is rounded to bf16 for weights that are not f32; in between, AMX takes it in two parts. */
constexpr int64_t kTwoPartTokens = 256, kFewTileTokens = 16;

/* A block of a file: any bytes, but for scales of moderate size. */
template <typename Block>
void tame(Block &block) {
  block.scale = 0x2000;
}
void tame(ps::BlockQ4_K &block) { block.scale = 0x2000, block.min = 0x2000; }
void tame(ps::BlockQ5_K &block) { block.scale = 0x2000, block.min = 0x2000; }
void tame(ps::BlockF8 &block) {
  for (uint8_t &q : block.q) q = (q & 0x7f) == 0x7f ? 0x38 : q;
  block.scale = 0x1p-6f;
}

template <typename Block>
std::vector<uint8_t> draw_blocks(Machine &machine, int64_t count) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * sizeof(Block));
  for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(machine.random()());
  for (size_t at = 0; at < bytes.size(); at += sizeof(Block)) {
    Block block;
    std::memcpy(&block, &bytes[at], sizeof block);
    tame(block);
    std::memcpy(&bytes[at], &block, sizeof block);
  }
  return bytes;
}

ps_tensor make_weight(Machine &machine, int32_t dtype, int64_t outputs, int64_t inputs) {
  const ps_tensor weight = machine.make({outputs, inputs}, dtype);
  const auto write = [&](int32_t source, const void *data, size_t bytes) {
    MUST(ps_weight_write(machine.device(), &weight, 0, outputs, source, data, int64_t(bytes)) == PS_OK);
  };
  const auto write_blocks = [&](const std::vector<uint8_t> &bytes) { write(dtype, bytes.data(), bytes.size()); };
  if (dtype == PS_Q4_K) write_blocks(draw_blocks<ps::BlockQ4_K>(machine, outputs * inputs / 256));
  else if (dtype == PS_Q5_K) write_blocks(draw_blocks<ps::BlockQ5_K>(machine, outputs * inputs / 256));
  else if (dtype == PS_Q6_K) write_blocks(draw_blocks<ps::BlockQ6_K>(machine, outputs * inputs / 256));
  else if (dtype == PS_F8) write_blocks(draw_blocks<ps::BlockF8>(machine, outputs * inputs / 128));
  else {
    const std::vector<float> numbers = machine.draw(outputs * inputs);
    write(PS_F32, numbers.data(), numbers.size() * sizeof(float));
  }
  return weight;
}

std::vector<float> read_weight(Machine &machine, const ps_tensor &weight) {
  std::vector<int32_t> ids(static_cast<size_t>(weight.shape[0]));
  for (size_t i = 0; i < ids.size(); i++) ids[i] = int32_t(i);
  const ps_tensor rows = machine.make({weight.shape[0]}, ids, PS_I32), out = machine.make({weight.shape[0], weight.shape[1]});
  MUST(ps_embedding(machine.device(), &rows, &weight, &out) == PS_OK);
  return Machine::read(out);
}

/* What the contract of ps_matmul allows, as a part of the sum of |x * weight|. */
double allowed(const std::string &isa, int32_t dtype, int64_t tokens) {
  const bool blocks = dtype >= PS_Q8_0;
  const bool rounds = dtype == PS_BF16 || blocks;
  if (isa == "amx" && rounds && tokens > kFewTileTokens) return tokens > kTwoPartTokens || blocks ? kRounded : 0x1p-16;
  if (isa == "neonbf16" && rounds && tokens > kTwoPartTokens) return kRounded;
  return kExact;
}

/* x with 15 bits per block of 32: half a step of its largest number. */
double rounding_of_blocks(const float *x, const float *w, int64_t inputs) {
  double sum = 0;
  for (int64_t k = 0; k < inputs; k += 32) {
    double largest = 0, weights = 0;
    for (int64_t i = k; i < k + 32; i++) {
      largest = std::fmax(largest, std::fabs(x[i]));
      weights += std::fabs(w[i]);
    }
    sum += largest * weights;
  }
  return sum * 0x1p-14;
}

void check(Machine &machine, int32_t dtype, int64_t tokens, int64_t outputs, int64_t inputs, bool with_bias) {
  const ps_tensor weight = make_weight(machine, dtype, outputs, inputs);
  const std::vector<float> w = read_weight(machine, weight), x = machine.draw(tokens * inputs), b = machine.draw(outputs);
  const ps_tensor input = machine.make({tokens, inputs}, x), bias = machine.make({outputs}, b), out = machine.make({tokens, outputs});
  MUST(ps_matmul(machine.device(), &input, &weight, with_bias ? &bias : nullptr, &out) == PS_OK);
  const std::vector<float> actual = Machine::read(out);
  const double relative = allowed(machine.isa(), dtype, tokens);
  const std::string what = std::string("a product of ") + ps::kBlockFormats[dtype].name + " with " + std::to_string(tokens) + " tokens";
  for (int64_t t = 0; t < tokens; t += tokens > 64 ? 37 : 1) {
    for (int64_t n = 0; n < outputs; n++) {
      const float *own = x.data() + t * inputs, *row = w.data() + n * inputs;
      double sum = with_bias ? b[size_t(n)] : 0, size = std::fabs(sum);
      for (int64_t k = 0; k < inputs; k++) {
        sum += double(own[k]) * row[k];
        size += std::fabs(double(own[k]) * row[k]);
      }
      const double blocks = dtype >= PS_Q8_0 ? rounding_of_blocks(own, row, inputs) : 0;
      must_be_near(actual[size_t(t * outputs + n)], sum, relative * size + blocks, what);
    }
  }
  machine.clear();
}

}  // namespace

int main() {
  Machine machine;
  int products = 0;
  for (const int32_t dtype : {PS_F32, PS_F16, PS_BF16, PS_Q8_0, PS_Q4_0, PS_Q4_1, PS_Q5_0, PS_Q5_1, PS_Q4_K, PS_Q5_K, PS_Q6_K, PS_F8}) {
    const bool blocks = dtype >= PS_Q8_0;
    for (const int64_t tokens : {1, 3, 7, 8, 9, 21, 270}) {
      check(machine, dtype, tokens, 45, blocks ? 768 : 613, tokens % 2 == 0);
      products++;
    }
  }
  MUST(ps_live_handles() == 1);
  std::printf("products %d with %s\n", products, machine.isa().c_str());
  return 0;
}
