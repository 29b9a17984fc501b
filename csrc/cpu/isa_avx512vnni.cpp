/* Products with weights in blocks, for processors that also multiply bytes; all else is the same as for other processors with AVX-512. */
#define PS_ISA isa_avx512vnni
#include "isa.h"
#include "kernels/matmul_quantized.h"

namespace ps {
void matmul_quantized_vnni(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul_quantized(pool, params); }
}  // namespace ps
