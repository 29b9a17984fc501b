/* Products with weights in blocks. */
#pragma once

#include "../../block_formats.h"
#include "../backend.h"

namespace ps {

constexpr int kQuantizedTokens = 16; /* a decode step of a batch; more are a prompt, for cuBLAS */

/* out = x * weight^T + bias for up to kQuantizedTokens tokens. */
void matmul_quantized(Backend &backend, const MatmulParams &params);

/* fused_matmul of one token in one launch. Returns false, with nothing done, where that is not possible. */
bool fused_matmul_quantized(Backend &backend, const FusedMatmulParams &params);

/* Rows [first, first + rows) of the weights as bf16 at out [rows, inputs]. */
void dequantize_rows(Backend &backend, const MatmulParams &params, int64_t first, int64_t rows, void *out);

}  // namespace ps
