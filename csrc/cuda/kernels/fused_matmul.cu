/* A product with its norm and its ending: of one token in the kernel of the product; of the tokens of a batch with its gates multiplied or its sum added
 * there, and without a launch for the norm where the sum before has prepared that; else one operation after the other. */
#include "../../fused_matmul_parts.h"
#include "matmul_batch.h"
#include "matmul_quantized.h"
#include "matvec.cuh"

namespace ps {
namespace {

/* Whether the launch before knows the norm of x. */
bool is_prepared(const Backend &backend, const FusedMatmulParams &params) {
  const NormedRows &normed = backend.normed;
  return params.norm.data != nullptr && is_about_x(normed, params.matmul) && normed.norm == params.norm.data && normed.eps == params.eps;
}

/* A product, then its sum and the norm of that in one launch. */
void add_and_norm(Backend &backend, const FusedMatmulParams &params) {
  MatmulParams product = params.matmul;
  const Rows<float> out = product.out;
  product.out = params.product;
  matmul(backend, product);
  const RmsNormParams norm{{out.data, out.stride}, params.next_norm, params.next_normed, product.tokens, 1, product.outputs, params.eps};
  add_rms_norm(backend, {out, {params.product.data, params.product.stride}, norm});
  backend.normed = {out.data,   out.stride,         product.tokens, product.outputs, params.next_norm.data,
                    params.eps, params.next_normed, nullptr,        nullptr,         0};
}

}  // namespace

void fused_matmul(Backend &backend, const FusedMatmulParams &given) {
  const bool blocks = is_block_format(given.matmul.weight.dtype);
  if (blocks ? fused_matmul_quantized(backend, given) : fused_matvec(backend, given)) return;
  FusedMatmulParams params = given;
  if (is_prepared(backend, params)) {
    const Rows<float> rows = backend.normed.rows;
    if (rows.data == nullptr && normed_matmul(backend, params)) return;
    if (rows.data != nullptr) params.matmul.x = {rows.data, rows.stride}, params.norm = {nullptr, 0, PS_F32};
  }
  if (params.norm.data == nullptr && params.ending == PS_ADD && params.next_norm.data != nullptr) {
    if (!adding_matmul(backend, params)) add_and_norm(backend, params);
    return;
  }
  const bool gated = params.ending == PS_SILU_MUL || params.ending == PS_GELU_MUL;
  if (params.norm.data == nullptr && gated && gated_matmul(backend, params.matmul, params.ending)) return;
  fused_matmul_parts(backend, params);
}

}  // namespace ps
