#include "tensors.h"

namespace ps {

int64_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
    case PS_F32:
    case PS_I32: return 4;
    case PS_F16:
    case PS_BF16: return 2;
    default: throw Error(PS_INVALID_ARGUMENT, std::string("A tensor of plain numbers cannot have dtype ") + dtype_name(dtype));
  }
}

const char *dtype_name(int32_t dtype) { return dtype >= 0 && dtype < kDtypes ? kBlockFormats[dtype].name : "unknown"; }

namespace {

std::string shape_text(const int64_t *shape, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; i++) text += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return text + "]";
}

/* Bytes from the first element of a view to behind its last, whose dimensions are checked. */
int64_t span_bytes(const ps_tensor &t) { return bytes_of_numbers(t.dtype, (t.shape[0] - 1) * t.row_stride + t.shape[1] * t.shape[2]); }

void check_bounds(const char *name, const ps_tensor &tensor) {
  constexpr int64_t kLimit = int64_t(1) << 46; /* elements; keeps every product below 2^63 */
  int64_t inner = 1;
  for (int i = 0; i < 3; i++) {
    require(tensor.shape[i] >= 1 && tensor.shape[i] < kLimit, name, " has a dimension outside [1, 2^46)");
    if (i > 0) require(inner <= kLimit / tensor.shape[i], name, " is too large");
    if (i > 0) inner *= tensor.shape[i];
  }
  require(tensor.row_stride >= 0 && tensor.row_stride < kLimit, name, " has a row stride outside [0, 2^46)");
  require(tensor.shape[0] == 1 || tensor.row_stride >= inner, name, " has rows that overlap");
  require(tensor.shape[0] == 1 || tensor.row_stride == 0 || tensor.shape[0] - 1 <= kLimit / tensor.row_stride, name, " is too large");
  const BlockFormat &format = kBlockFormats[tensor.dtype];
  require(inner % format.numbers == 0, name, " has rows of ", inner, " numbers, expected a multiple of ", format.numbers, ", the block of ",
          format.name);
  require(tensor.row_stride % format.numbers == 0, name, " has a row stride of ", tensor.row_stride, " numbers, expected a multiple of ",
          format.numbers, ", the block of ", format.name);
  require(tensor.offset_bytes >= 0 && tensor.offset_bytes % format.alignment == 0, name, " starts at a byte that does not fit its dtype");
  require(tensor.offset_bytes <= tensor.buffer->bytes && span_bytes(tensor) <= tensor.buffer->bytes - tensor.offset_bytes, name,
          " extends past the end of its buffer");
}

}  // namespace

Checked check_tensor(const ps_device &device, const char *name, const ps_tensor *tensor, unsigned dtypes, std::initializer_list<int64_t> shape) {
  require(tensor != nullptr && tensor->buffer != nullptr, name, " is missing");
  require(tensor->buffer->device.get() == &device, name, " belongs to another device");
  require(tensor->dtype >= 0 && tensor->dtype < kDtypes && (dtypes >> tensor->dtype & 1u) != 0, name, " has dtype ", dtype_name(tensor->dtype),
          ", which this operation does not take");
  bool fits = tensor->rank == static_cast<int32_t>(shape.size());
  size_t i = 0;
  for (int64_t expected : shape) {
    fits = fits && (expected < 0 || expected == tensor->shape[i]);
    i++;
  }
  if (!fits) {
    const size_t rank = tensor->rank >= 1 && tensor->rank <= 3 ? static_cast<size_t>(tensor->rank) : 0;
    throw Error(PS_INVALID_ARGUMENT,
                std::string(name) + " has shape " + shape_text(tensor->shape, rank) + ", expected " + shape_text(shape.begin(), shape.size()));
  }
  for (size_t j = shape.size(); j < 3; j++) require(tensor->shape[j] == 1, name, " has more dimensions than its rank");
  check_bounds(name, *tensor);
  Checked checked{tensor->buffer->here() + tensor->offset_bytes, tensor->row_stride, {}, static_cast<ps_dtype>(tensor->dtype)};
  for (int d = 0; d < 3; d++) checked.shape[d] = tensor->shape[d];
  return checked;
}

Checked check_dense(const ps_device &device, const char *name, const ps_tensor *tensor, unsigned dtypes, std::initializer_list<int64_t> shape) {
  Checked checked = check_tensor(device, name, tensor, dtypes, shape);
  require(checked.shape[0] == 1 || checked.stride == checked.shape[1] * checked.shape[2], name, " has gaps between its rows");
  return checked;
}

void require_apart(const char *name, const ps_tensor *written, std::initializer_list<const ps_tensor *> indices) {
  for (const ps_tensor *index : indices) {
    if (written == nullptr || index == nullptr || written->buffer != index->buffer) continue;
    const bool apart = written->offset_bytes + span_bytes(*written) <= index->offset_bytes ||
                       index->offset_bytes + span_bytes(*index) <= written->offset_bytes;
    require(apart, name, " overlaps indices that the call reads");
  }
}

}  // namespace ps
