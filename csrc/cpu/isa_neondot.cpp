/* Products with weights in blocks, for arm64 processors that multiply bytes (FEAT_DotProd); all else is the same as for others. */
#define PS_ISA isa_neondot
#include "isa.h"
#include "kernels/matmul_quantized.h"

namespace ps {
void matmul_quantized_neondot(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul_quantized(pool, params); }
}  // namespace ps
