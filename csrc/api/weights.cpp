/* Writes weights, converted in main memory where the caller's dtype is another. */
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "quantize.h"
#include "tensors.h"

using namespace ps;

namespace {

constexpr int64_t kPieceNumbers = 1 << 21; /* converted before they are stored */
constexpr int64_t kTaskNumbers = 1 << 16;  /* converted by one thread at a time */

struct Source {
  int32_t dtype;
  const char *rows;
  int64_t row_bytes;
};

/* Rows [first, first + count) of the weight, already in its dtype. */
void store_rows(ps_device &device, const Checked &weight, int64_t inputs, int64_t first, int64_t count, const char *rows) {
  if (is_block_format(weight.dtype)) {
    return weight_write_blocks(*device.backend, {weight.typed(), weight.shape[0], inputs, first, count, rows});
  }
  const int64_t row_bytes = bytes_of_numbers(weight.dtype, inputs), stride_bytes = bytes_of_numbers(weight.dtype, weight.stride);
  char *target = static_cast<char *>(weight.data) + first * stride_bytes;
  if (stride_bytes == row_bytes) return memory_write(*device.backend, target, rows, count * row_bytes);
  for (int64_t i = 0; i < count; i++) memory_write(*device.backend, target + i * stride_bytes, rows + i * row_bytes, row_bytes);
}

/* Calls body(first, count) for groups of rows, on all threads. It must not throw. */
template <typename Body>
void for_groups(Backend &backend, int64_t rows, int64_t inputs, const Body &body) {
  const int64_t step = std::max(int64_t(1), kTaskNumbers / inputs);
  run_on_host(backend, (rows + step - 1) / step, [&](int64_t i) { body(i * step, std::min(step, rows - i * step)); });
}

/* Calls body(first, floats [count * inputs], count) for pieces of the rows. */
template <typename Body>
void for_pieces(Backend &backend, const Source &source, int64_t inputs, int64_t rows, const Body &body) {
  const int64_t piece = std::min(rows, std::max(int64_t(1), kPieceNumbers / inputs));
  std::vector<float> floats(static_cast<size_t>(piece * inputs));
  for (int64_t first = 0; first < rows; first += piece) {
    const int64_t count = std::min(piece, rows - first);
    for_groups(backend, count, inputs, [&](int64_t row, int64_t group) {
      widen_numbers(source.dtype, source.rows + (first + row) * source.row_bytes, group * inputs, floats.data() + row * inputs);
    });
    body(first, floats.data(), count);
  }
}

/* Before anything is written. A NaN fails the comparison. */
void check_numbers(Backend &backend, const char *format, const Source &source, int64_t inputs, int64_t rows) {
  for_pieces(backend, source, inputs, rows, [&](int64_t first, const float *floats, int64_t count) {
    std::atomic<bool> all_fit{true};
    for_groups(backend, count, inputs, [&](int64_t row, int64_t group) {
      bool fits = true;
      for (int64_t i = row * inputs; i < (row + group) * inputs; i++) fits &= std::fabs(floats[i]) <= kLargestQuantized;
      if (!fits) all_fit = false;
    });
    for (int64_t i = 0; !all_fit && i < count * inputs; i++) {
      require(std::fabs(floats[i]) <= kLargestQuantized, "Row ", first + i / inputs,
              " of the source contains a number that is NaN or above 65504, which ", format, " cannot store");
    }
  });
}

}  // namespace

extern "C" {

int32_t ps_weight_write(ps_device *device, const ps_tensor *weight, int64_t first_row, int64_t rows, int32_t source_dtype, const void *source,
                        int64_t source_bytes) {
  return guard_each(device, [&] {
    require_running(*device);
    const bool matrix = weight == nullptr || weight->rank != 1;
    const Checked w = matrix ? check_tensor(*device, "weight", weight, kWeights, {-1, -1}) : check_tensor(*device, "weight", weight, kWeights, {-1});
    const int64_t inputs = w.shape[1];
    require(first_row >= 0 && rows >= 1 && first_row < w.shape[0] && rows <= w.shape[0] - first_row, "Rows ", first_row, " to ", first_row, " + ",
            rows, " lie outside a weight of ", w.shape[0], " rows");
    require(source != nullptr, "No memory given to read the rows from");
    const bool same = source_dtype == w.dtype, plain = source_dtype == PS_F32 || source_dtype == PS_F16 || source_dtype == PS_BF16;
    require(same || plain, "A source of dtype ", dtype_name(source_dtype), " cannot be stored as ", dtype_name(w.dtype),
            "; supply f32, f16, bf16 or ", dtype_name(w.dtype));
    const Source from{source_dtype, static_cast<const char *>(source), bytes_of_numbers(source_dtype, inputs)};
    require(source_bytes == rows * from.row_bytes, rows, " rows of ", inputs, " ", dtype_name(source_dtype), " numbers take ", rows * from.row_bytes,
            " bytes; the source has ", source_bytes);
    if (same) return store_rows(*device, w, inputs, first_row, rows, from.rows);
    if (is_block_format(w.dtype)) {
      if (!can_quantize_to(w.dtype)) {
        throw Error(PS_UNSUPPORTED,
                    std::string("Numbers cannot be quantised to ") + dtype_name(w.dtype) + ", only to q8_0, q4_0, q4_1, q5_0 and q5_1");
      }
      check_numbers(*device->backend, dtype_name(w.dtype), from, inputs, rows);
    }
    std::vector<char> converted;
    for_pieces(*device->backend, from, inputs, rows, [&](int64_t first, const float *floats, int64_t count) {
      converted.resize(static_cast<size_t>(bytes_of_numbers(w.dtype, count * inputs)));
      for_groups(*device->backend, count, inputs, [&](int64_t row, int64_t group) {
        narrow_numbers(w.dtype, floats + row * inputs, group * inputs, converted.data() + bytes_of_numbers(w.dtype, row * inputs));
      });
      store_rows(*device, w, inputs, first_row + first, count, converted.data());
    });
  });
}

}  // extern "C"
