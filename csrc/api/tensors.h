/* Checked access to the tensor views of a call. */
#pragma once

#include <initializer_list>
#include <string>

#include "../block_formats.h"
#include "handles.h"

namespace ps {

/* Of one number; refuses block formats. */
int64_t dtype_bytes(int32_t dtype);
const char *dtype_name(int32_t dtype);

/* A view that is inside its buffer on `device`, has the required rank and shape (-1 accepts any size), and has one of the dtypes in the
 * bit set `dtypes` (1 << ps_dtype). Error messages begin with `name`. */
struct Checked {
  void *data;
  int64_t stride;
  int64_t shape[3];
  ps_dtype dtype;

  template <typename T>
  Rows<T> rows() const {
    return {static_cast<T *>(data), stride};
  }
  Typed typed() const { return {data, stride, dtype}; }
  int32_t *ints() const { return static_cast<int32_t *>(data); }
  float *floats() const { return static_cast<float *>(data); }
};

constexpr unsigned kF32 = 1u << PS_F32, kI32 = 1u << PS_I32;
constexpr unsigned kFloats = 1u << PS_F32 | 1u << PS_F16 | 1u << PS_BF16;
constexpr unsigned kWeights = ((1u << kDtypes) - 1) & ~kI32; /* floats and block formats */

Checked check_tensor(const ps_device &device, const char *name, const ps_tensor *tensor, unsigned dtypes, std::initializer_list<int64_t> shape);

/* The same for a view without gaps between its rows. */
Checked check_dense(const ps_device &device, const char *name, const ps_tensor *tensor, unsigned dtypes, std::initializer_list<int64_t> shape);

/* Refuses a call that would overwrite its own indices, which are checked before it starts. The views themselves are already checked; NULL is
 * skipped. `name` is the name of the written tensor. */
void require_apart(const char *name, const ps_tensor *written, std::initializer_list<const ps_tensor *> indices);

}  // namespace ps
