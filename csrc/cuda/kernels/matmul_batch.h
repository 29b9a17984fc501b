/* Products of the tokens of a decode step of a batch. */
#pragma once

#include "rounded_rows.cuh"

namespace ps {

constexpr int64_t kMostBatchTokens = 64; /* above, cuBLAS is no slower */

/* x of a product, in the dtype of its weights. */
struct RoundedX {
  const void *data;  /* [tokens, stride], 16-byte aligned rows */
  int64_t stride;
  const float *undo; /* [tokens] what the sums of a token are multiplied by; nullptr for 1 */
};

/* Whether matmul_batch can compute a product with this ending, of x in the dtype of the weights. */
bool takes_batch(const Backend &backend, const MatmulParams &params, ps_ending ending);

/* out = x * weight^T + bias for up to kMostBatchTokens tokens; with PS_SILU_MUL and PS_GELU_MUL out [tokens, outputs / 2] = activation(first half)
 * * second half of that, and `copy` gets it rounded. x stands for that of params. */
void matmul_batch(Backend &backend, const MatmulParams &params, const RoundedX &x, ps_ending ending, const RoundedCopy &copy);

/* matmul.cu: the same with x of params, which it rounds. Returns false, with nothing done, where that is not possible. */
bool gated_matmul(Backend &backend, const MatmulParams &params, ps_ending ending);

}  // namespace ps
