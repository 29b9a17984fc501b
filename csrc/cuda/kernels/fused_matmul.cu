/* A product of one token with its norm and its ending, in the kernels of the product; of more tokens one operation after the other. */
#include "../../fused_matmul_parts.h"
#include "matmul_quantized.h"
#include "matvec.cuh"

namespace ps {

void fused_matmul(Backend &backend, const FusedMatmulParams &params) {
  const bool blocks = is_block_format(params.matmul.weight.dtype);
  if (!(blocks ? fused_matmul_quantized(backend, params) : fused_matvec(backend, params))) fused_matmul_parts(backend, params);
}

}  // namespace ps
