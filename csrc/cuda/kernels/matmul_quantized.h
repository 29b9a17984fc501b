/* Products with weights in blocks. */
#pragma once

#include "../../block_formats.h"
#include "../backend.h"

namespace ps {

/* out = x * weight^T + bias for up to 16 tokens; false where there are more. */
bool matmul_quantized(Backend &backend, const MatmulParams &params);

/* Rows [first, first + rows) of the weights as bf16 at out [rows, inputs]. */
void dequantize_rows(Backend &backend, const MatmulParams &params, int64_t first, int64_t rows, void *out);

}  // namespace ps
