/* Products with many tokens by cuBLAS, which is loaded when a device is opened. Host code only. */
#pragma once

#include "../backend.h"

namespace ps {

/* params.out = x * params.weight^T, without bias. x [tokens, inputs] has the weights' dtype and stands in for params.x. */
void matmul_cublas(Backend &backend, const MatmulParams &params, const Typed &x);

}  // namespace ps
