/* Products and attention of many tokens, for processors with AMX; all else is the same as for other processors with AVX-512 VNNI. */
#define PS_ISA isa_amx
#include "isa.h"
#include "kernels/matmul.h"
#include "kernels/matmul_quantized.h"
#include "kernels/prefill_attention.h"

namespace ps {
void matmul_amx(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul(pool, params); }
void matmul_quantized_amx(ThreadPool &pool, const MatmulParams &params) { PS_ISA::matmul_quantized(pool, params); }
void prefill_attention_amx(ThreadPool &pool, const PrefillAttentionParams &params) { PS_ISA::prefill_attention(pool, params); }
}  // namespace ps
