/* A device with tensors of drawn numbers, for programs that compare an operation with the same sums in f64. */
#pragma once

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/block_formats.h"
#include "../../csrc/numbers.h"
#include "support.h"

/* Of sums in f32. */
constexpr double kExact = 1e-5;
/* Of two factors that were rounded to bf16. */
constexpr double kRounded = 1.0 / 127;

class Machine {
 public:
  Machine() {
    ps_device_options options{};
    MUST(ps_device_open(&options, &device_, nullptr, 0) == PS_OK);
    ps_device_info info{};
    MUST(ps_device_describe(device_, &info) == PS_OK);
    isa_ = info.name;
  }
  ~Machine() {
    for (ps_buffer *buffer : buffers_) ps_buffer_close(buffer);
    ps_device_close(device_);
  }
  Machine(const Machine &) = delete;
  Machine &operator=(const Machine &) = delete;

  ps_device *device() const { return device_; }
  const std::string &isa() const { return isa_; }

  /* A tensor of zeros without gaps. */
  ps_tensor make(std::initializer_list<int64_t> shape, int32_t dtype = PS_F32) {
    ps_tensor tensor{nullptr, 0, 1, {1, 1, 1}, static_cast<int32_t>(shape.size()), dtype};
    int i = 0;
    for (const int64_t size : shape) tensor.shape[i++] = size;
    tensor.row_stride = tensor.shape[1] * tensor.shape[2];
    MUST(ps_buffer_create(device_, ps::bytes_of_numbers(dtype, count(tensor)), &tensor.buffer) == PS_OK);
    buffers_.push_back(tensor.buffer);
    return tensor;
  }
  template <typename T>
  ps_tensor make(std::initializer_list<int64_t> shape, const std::vector<T> &numbers, int32_t dtype = PS_F32) {
    const ps_tensor tensor = make(shape, dtype);
    MUST(int64_t(numbers.size()) == count(tensor));
    MUST(ps_buffer_write(tensor.buffer, 0, numbers.data(), int64_t(numbers.size() * sizeof(T))) == PS_OK);
    return tensor;
  }
  template <typename T = float>
  static std::vector<T> read(const ps_tensor &tensor) {
    std::vector<T> numbers(static_cast<size_t>(count(tensor)));
    MUST(ps_buffer_read(tensor.buffer, 0, numbers.data(), int64_t(numbers.size() * sizeof(T))) == PS_OK);
    return numbers;
  }
  /* Closes all tensors. */
  void clear() {
    for (ps_buffer *buffer : buffers_) MUST(ps_buffer_close(buffer) == PS_OK);
    buffers_.clear();
  }

  /* Numbers from about -3 to 3. */
  std::vector<float> draw(int64_t count) {
    std::normal_distribution<float> normal;
    std::vector<float> numbers(static_cast<size_t>(count));
    for (float &number : numbers) number = normal(random_);
    return numbers;
  }
  std::mt19937 &random() { return random_; }

 private:
  static int64_t count(const ps_tensor &tensor) { return tensor.shape[0] * tensor.shape[1] * tensor.shape[2]; }

  ps_device *device_ = nullptr;
  std::string isa_;
  std::vector<ps_buffer *> buffers_;
  std::mt19937 random_{7};
};

/* Ends the process if a number is further from the expected one than `most`. */
inline void must_be_near(double actual, double expected, double most, const std::string &what) {
  if (std::fabs(actual - expected) <= most) return;
  std::fprintf(stderr, "FAILED: %s is %.9g instead of %.9g, with %.3g allowed\n", what.c_str(), actual, expected, most);
  std::abort();
}
