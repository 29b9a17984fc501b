/* A product with its norm and its ending: of one token in the kernel of the product, of the tokens of a batch with its gates multiplied there; else
 * one operation after the other. */
#include "../../fused_matmul_parts.h"
#include "matmul_batch.h"
#include "matmul_quantized.h"
#include "matvec.cuh"

namespace ps {

void fused_matmul(Backend &backend, const FusedMatmulParams &params) {
  const bool blocks = is_block_format(params.matmul.weight.dtype);
  if (blocks ? fused_matmul_quantized(backend, params) : fused_matvec(backend, params)) return;
  if (params.norm.data == nullptr && params.ending != PS_STORE && gated_matmul(backend, params.matmul, params.ending)) return;
  fused_matmul_parts(backend, params);
}

}  // namespace ps
