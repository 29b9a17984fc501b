/* fused_matmul as the operations that it joins, for where one kernel of its own does not pay. */
#pragma once

#include "backend.h"

namespace ps {

inline void fused_matmul_parts(Backend &backend, const FusedMatmulParams &p) {
  MatmulParams product = p.matmul;
  const int64_t tokens = product.tokens, outputs = product.outputs;
  if (p.norm.data != nullptr) {
    rms_norm(backend, {product.x, p.norm, p.normed, tokens, 1, product.inputs, p.eps});
    product.x = {p.normed.data, p.normed.stride};
  }
  if (p.ending == PS_STORE) return matmul(backend, product);
  product.out = p.product;
  matmul(backend, product);
  const Rows<const float> found{p.product.data, p.product.stride};
  if (p.ending == PS_ADD) return add(backend, {p.matmul.out, found, tokens, outputs});
  const GatedParams gated{found, {found.data + outputs / 2, found.stride}, p.matmul.out, tokens, outputs / 2};
  if (p.ending == PS_SILU_MUL) silu_mul(backend, gated);
  else gelu_mul(backend, gated);
}

}  // namespace ps
