#include "tensor_map.h"

#include <cudaTypedefs.h>

namespace ps {
namespace {

using Encode = PFN_cuTensorMapEncodeTiled_v12000;

Encode find_encode() {
  void *found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
             "Could not ask the driver for tensor maps");
  if (result != cudaDriverEntryPointSuccess) throw Error(PS_DEVICE_ERROR, "The driver has no cuTensorMapEncodeTiled; install a driver for CUDA 13");
  return reinterpret_cast<Encode>(found);
}

}  // namespace

CUtensorMap make_tensor_map(const MapShape &shape) {
  static const Encode encode = find_encode();
  const uint32_t steps[kMostMapDims] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode(&map, shape.dtype == PS_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                 static_cast<uint32_t>(shape.rank), const_cast<void *>(shape.data), shape.sizes, shape.strides + 1, shape.box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error(PS_DEVICE_ERROR, "The driver refuses a tensor map with status " + std::to_string(result) + "; install a newer driver for CUDA 13");
  return map;
}

}  // namespace ps
