/* Products whose weights end where readable memory ends, and whose row stride is so large that the address of a row behind the last one
 * wraps around. Compiled with UndefinedBehaviorSanitizer: a read past the end is a fault, a pointer to a row that does not exist a report. */
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#define PS_ISA isa_portable
#include "../../csrc/cpu/kernels/matmul.h"
#include "../../csrc/cpu/kernels/matmul_quantized.h"
#include "support.h"

namespace {

int g_products = 0;

/* Memory whose last byte is the last one that may be read. */
class Guarded {
 public:
  explicit Guarded(size_t bytes) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), size_((bytes + page_ - 1) / page_ * page_ + page_) {
    memory_ = static_cast<char *>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(memory_ != MAP_FAILED && mprotect(memory_ + size_ - page_, page_, PROT_NONE) == 0);
    start_ = memory_ + size_ - page_ - bytes;
  }
  ~Guarded() { munmap(memory_, size_); }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;
  void *start() const { return start_; }

 private:
  size_t page_, size_;
  char *memory_, *start_;
};

/* Weights are all 1 (bf16 and f32 by their upper bits), x is all 2: every output is 2 * inputs. */
void multiply(ps::ThreadPool &pool, ps_dtype dtype, int64_t tokens, int64_t inputs, int64_t outputs, int64_t stride) {
  const size_t size = dtype == PS_F32 ? 4 : 2;
  Guarded weights((static_cast<size_t>(outputs - 1) * static_cast<size_t>(outputs > 1 ? stride : 0) + static_cast<size_t>(inputs)) * size);
  for (int64_t n = 0; n < outputs; n++) {
    for (int64_t k = 0; k < inputs; k++) {
      const float one = 1;
      const uint16_t half = dtype == PS_BF16 ? 0x3f80 : 0x3c00;
      char *place = static_cast<char *>(weights.start()) + static_cast<size_t>((n > 0 ? n * stride : 0) + k) * size;
      std::memcpy(place, dtype == PS_F32 ? static_cast<const void *>(&one) : &half, size);
    }
  }
  std::vector<float> x(static_cast<size_t>(tokens * inputs), 2.f), out(static_cast<size_t>(tokens * outputs), -1.f);
  ps::MatmulParams params{};
  params.x = {x.data(), inputs};
  params.weight.data = weights.start();
  params.weight.stride = stride;
  params.weight.dtype = dtype;
  params.out = {out.data(), outputs};
  params.tokens = tokens;
  params.inputs = inputs;
  params.outputs = outputs;
  ps::isa_portable::matmul(pool, params);
  g_products++;
  for (const float value : out) MUST(value == 2.f * static_cast<float>(inputs));
}

/* Weights in blocks whose bytes are all 0: so is every output. */
void multiply_blocks(ps::ThreadPool &pool, ps_dtype dtype, int64_t tokens, int64_t inputs, int64_t outputs) {
  Guarded weights(static_cast<size_t>(outputs * ps::bytes_of_numbers(dtype, inputs)));
  std::vector<float> x(static_cast<size_t>(tokens * inputs), 2.f), out(static_cast<size_t>(tokens * outputs), -1.f);
  ps::MatmulParams params{};
  params.x = {x.data(), inputs};
  params.weight = {weights.start(), inputs, dtype};
  params.out = {out.data(), outputs};
  params.tokens = tokens;
  params.inputs = inputs;
  params.outputs = outputs;
  ps::isa_portable::matmul_quantized(pool, params);
  g_products++;
  for (const float value : out) MUST(value == 0);
}

}  // namespace

int main() {
  ps::ThreadPool pool(2);
  for (const ps_dtype dtype : {PS_F32, PS_F16, PS_BF16}) {
    for (const int64_t tokens : {1, 5, 8, 9, 40, 261}) {
      for (const int64_t outputs : {1, 3, 17, 33}) {
        for (const int64_t inputs : {1, 16, 70, 600}) {
          multiply(pool, dtype, tokens, inputs, outputs, inputs);
          if (outputs == 1) multiply(pool, dtype, tokens, inputs, outputs, int64_t(1) << 60);
        }
      }
    }
  }
  for (const ps_dtype dtype : {PS_Q8_0, PS_Q4_0, PS_Q4_1, PS_Q5_0, PS_Q5_1, PS_Q4_K, PS_Q5_K, PS_Q6_K, PS_F8}) {
    for (const int64_t tokens : {1, 8, 9, 261}) {
      for (const int64_t outputs : {1, 16, 17, 33}) multiply_blocks(pool, dtype, tokens, 512, outputs);
    }
  }
  std::printf("products %d", g_products);
  return 0;
}
