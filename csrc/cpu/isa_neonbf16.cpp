/* Products of many tokens, for arm64 processors that multiply bf16 (FEAT_BF16); all else is the same as for those that multiply bytes. */
#define PS_ISA isa_neonbf16
#include "isa.h"
#include "kernels/matmul.h"
#include "kernels/matmul_quantized.h"

namespace ps {
void matmul_neonbf16(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul(pool, params); }
void matmul_quantized_neonbf16(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul_quantized(pool, params); }
}  // namespace ps
