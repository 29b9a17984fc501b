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
  NormedRows normed; /* where `squares` is not nullptr, x is `weighted`, and the sums of a token are multiplied by the factor of its norm */
};

/* What a sum leaves for the product that norms it: times `norm`, rounded, and the squares. */
struct NextRows {
  Typed norm;
  float *squares; /* [parts, tokens] */
};

/* Whether matmul_batch can compute a product with this ending, of x in the dtype of the weights. */
bool takes_batch(const Backend &backend, const MatmulParams &params, ps_ending ending);

/* Parts of the squares that a sum leaves, at most. */
int64_t most_square_parts(const MatmulParams &params);

/* out = x * weight^T + bias for up to kMostBatchTokens tokens; with PS_SILU_MUL and PS_GELU_MUL out [tokens, outputs / 2] = activation(first half)
 * * second half of that, and `copy` gets it rounded; with PS_ADD that is added to out, for bf16 weights, and `copy` and `next` get what they say.
 * x stands for that of params. Returns the parts of the squares. */
int32_t matmul_batch(Backend &backend, const MatmulParams &params, const RoundedX &x, ps_ending ending, const RoundedCopy &copy,
                     const NextRows &next = {});

/* matmul.cu: the same with x of params, which it rounds. Return false, with nothing done, where that is not possible. */
bool gated_matmul(Backend &backend, const MatmulParams &params, ps_ending ending);
/* With the ending PS_ADD; notes what it leaves for params.next_norm. */
bool adding_matmul(Backend &backend, const FusedMatmulParams &params);
/* With a norm, of x that the launch before has left times the norm. */
bool normed_matmul(Backend &backend, const FusedMatmulParams &params);

}  // namespace ps
