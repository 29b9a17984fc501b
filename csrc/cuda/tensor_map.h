/* Maps by which a kernel's copies find parts of a matrix: the driver describes them, and the build needs no driver library. Host code only. */
#pragma once

#include <cuda.h>

#include <cstdint>

#include "backend.h"

namespace ps {

constexpr int kMostMapDims = 4;

/* An array of 16-bit numbers in device memory, and the box of it that one copy takes. Dimension 0 is contiguous. What a box has beyond the array
 * reads as zeros. Rows of a box take 128 bytes of shared memory, in 128-byte swizzle. */
struct MapShape {
  const void *data; /* a multiple of 16 bytes */
  ps_dtype dtype;   /* PS_BF16 or PS_F16 */
  int rank;
  uint64_t sizes[kMostMapDims];
  uint64_t strides[kMostMapDims]; /* in bytes, multiples of 16; that of dimension 0 is not looked at */
  uint32_t box[kMostMapDims];     /* box[0]: 64 numbers */
};

CUtensorMap make_tensor_map(const MapShape &shape);

}  // namespace ps
