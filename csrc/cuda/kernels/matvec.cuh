/* Products with few tokens, bound by the bytes of the weights; matmul.cu chooses between this and cuBLAS. */
#pragma once

#include "../common.cuh"

namespace ps {

constexpr int64_t kFewTokens = 8; /* columns of the smallest tensor core instruction */

/* out = x * weight^T + bias for 1 to kFewTokens tokens. */
void matvec(Backend &backend, const MatmulParams &params);

/* fused_matmul of one token in one launch, or two where x is long. Returns false, with nothing done, where that is not possible. */
bool fused_matvec(Backend &backend, const FusedMatmulParams &params);

/* The bias of an output, 0 without one. */
__device__ __forceinline__ float bias_at(const Typed &bias, int64_t index) {
  if (bias.data == nullptr) return 0;
  if (bias.dtype == PS_F32) return static_cast<const float *>(bias.data)[index];
  if (bias.dtype == PS_F16) return to_float(static_cast<const f16 *>(bias.data)[index]);
  return to_float(static_cast<const bf16 *>(bias.data)[index]);
}

}  // namespace ps
